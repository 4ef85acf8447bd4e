"""Words with a role of their own in English, German, Spanish and Hindi; all in lower case."""

from __future__ import annotations


def _number(*rows: str, start: int = 0, step: int = 1) -> dict[str, int]:
    """Read rows of words for one number after the other; alternatives are separated by `/`."""
    return {
        word: start + place * step
        for row in rows
        for place, words in enumerate(row.split())
        for word in words.split("/")
    }


NUMBERS = _number(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    " nineteen",
    "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn"
    " neunzehn",
    "dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete dieciocho"
    " diecinueve",
    "दो तीन चार पांच/पाँच छह/छः/छ: सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह सोलह सत्रह अठारह उन्नीस",
    "second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth",
    "segundo/segunda tercero/tercera/tercer cuarto/cuarta quinto/quinta sexto/sexta séptimo/séptima octavo/octava"
    " noveno/novena décimo/décima",
    "zweite/zweiten/zweiter dritte/dritten/dritter vierte/vierten fünfte/fünften sechste/sechsten siebte/siebten"
    " achte/achten neunte/neunten zehnte/zehnten",
    start=2,
) | _number(
    "twenty thirty forty fifty sixty seventy eighty ninety hundred",
    "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert",
    "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa cien/ciento",
    "बीस तीस चालीस पचास साठ सत्तर अस्सी नब्बे सौ",
    start=20,
    step=10,
)
SCALES = {
    **dict.fromkeys("thousand tausend mil हजार हज़ार".split(), 10**3),
    **dict.fromkeys("lakh lakhs लाख".split(), 10**5),
    **dict.fromkeys("million millions mio million millionen millón millones मिलियन".split(), 10**6),
    **dict.fromkeys("crore crores करोड़ करोड़".split(), 10**7),
    **dict.fromkeys("billion billions bn milliarde milliarden mrd बिलियन अरब".split(), 10**9),
    **dict.fromkeys("trillion trillions billionen".split(), 10**12),
}
MONTHS = _number(
    "january/jan/januar/jänner/enero/जनवरी february/feb/februar/febrero/फरवरी march/mar/märz/marzo/मार्च"
    " april/apr/abril/अप्रैल may/mai/mayo/मई june/jun/juni/junio/जून july/jul/juli/julio/जुलाई"
    " august/aug/agosto/अगस्त september/sep/sept/septiembre/सितंबर/सितम्बर october/oct/oktober/okt/octubre/अक्टूबर"
    " november/nov/noviembre/नवंबर/नवम्बर december/dec/dezember/dez/diciembre/दिसंबर/दिसम्बर",
    start=1,
)
HOURS = {
    **dict.fromkeys("noon midday mittag mediodía".split(), 12),
    **dict.fromkeys("midnight mitternacht medianoche".split(), 0),
}

NEGATIONS = frozenset(
    "not no never none neither nor nobody nothing nowhere without cannot"
    " nicht kein keine keinen keiner keinem keines nie niemals niemand nirgends nichts weder ohne"
    " no nunca jamás ningún ninguno ninguna nadie nada tampoco sin ni"
    " नहीं नही न मत बिना कभी नहीं".split()
)
# Words that deny without being a negation: next to them a negation in the other text is no contradiction.
DENIALS = frozenset(
    "unable fail fails failed failing failure lack lacks lacked lacking refuse refuses refused except only rather instead"
    " few little hardly rarely scarcely barely seldom impossible unlike against avoid avoided avoids prevent prevents"
    " prevented prohibit prohibited forbid forbidden forbade ban banned deny denied denies exclude excluded excludes absent"
    " absence reject rejected rejects oppose opposed opposes stop stopped cease ceased abolish abolished unless until zero"
    " free lost loses less least wrong false incorrect incorrectly contrary uncommon unknown unclear unwilling illegal"
    " kaum selten wenig wenige unmöglich verhindern verhinderte verboten verweigerte scheiterte fehlt fehlte mangel außer nur"
    " erst statt sondern ablehnen lehnte gegen falsch unbekannt"
    " apenas raramente imposible falta faltó excepto solo sólo salvo evitar evitó prohibido rechazó contra hasta sino falso"
    " केवल सिर्फ असफल असंभव विफल रहित बजाय अलावा".split()
)
# Pairs of which one contradicts the other wherever it stands.
OPPOSITES = dict(
    pair
    for row in (
        "increase decrease|increased decreased|rise fall|rose fell|grew shrank|maximum minimum|largest smallest|"
        "larger smaller|highest lowest|higher lower|oldest youngest|older younger|longest shortest|longer shorter|"
        "most least|more less|strongest weakest|northern southern|eastern western|north south|east west|"
        "northwest southwest|northeast southeast|male female|legal illegal|accept reject|accepted rejected|won lost|"
        "allow forbid|allowed forbidden|always never|first last|majority minority|upper lower|inside outside|"
        "admitted denied|same different|open proprietary|public private|größer kleiner|höher niedriger|"
        "größte kleinste|nördlich südlich|östlich westlich|mayor menor|norte sur|aumentó disminuyó|mejor peor"
    ).split("|")
    for one, other in [row.split()]
    for pair in ((one, other), (other, one))
)

# Words that speak of the answer and the sources, not of what they are about.
META = frozenset(
    "source sources document documents documentation context passage passages text texts excerpt excerpts material information"
    " provided given according based mentioned mentions mention states stated state says said describes described according answer"
    " answers question questions summary following found details namely specifically therefore thus overall however see cf"
    " note noted references bibliography yes yeah sure certainly absolutely definitely indeed"
    " siehe vgl ja nein natürlich selbstverständlich literatur quelle quellen dokument dokumente dokumenten kontext textstelle"
    " angaben informationen laut gemäß antwort frage folgende"
    " folgenden zusammenfassung"
    " fuente fuentes documento documentos contexto pasaje texto textos información según respuesta pregunta siguiente siguientes"
    " resumen véase sí claro referencias"
    " हाँ हां स्रोत स्रोतों दस्तावेज़ दस्तावेज़ों दस्तावेज संदर्भ पाठ जानकारी अनुसार उत्तर प्रश्न सवाल जवाब".split()
)
SOURCES = frozenset(
    "source sources document documents context passage passages text texts excerpt excerpts material materials information"
    " quelle quellen dokument dokumente dokumenten kontext text texte texten angaben informationen unterlagen"
    " fuente fuentes documento documentos contexto pasaje pasajes texto textos información"
    " स्रोत स्रोतों दस्तावेज़ दस्तावेज़ों दस्तावेज दस्तावेजों संदर्भ पाठ जानकारी".split()
)
SAYING = frozenset(
    "say says said mention mentions mentioned state states stated specify specifies specified contain contains contained"
    " provide provides provided include includes included answer answers give gives given describe describes indicate indicates"
    " address addresses discuss discusses available find found enough sufficient about on regarding have"
    " sagen sagt erwähnen erwähnt erwähnung nennen nennt enthalten enthält angeben angegeben beantworten beantwortet geben gibt"
    " finden über zu vor hervor"
    " dice dicen menciona mencionan mencionado contiene contienen indica indican especifica especifican responde responden"
    " proporciona proporcionan ofrece ofrecen hay sobre encuentra incluye incluyen"
    " उल्लेख बताते बताया बताता मिली मिलती दी दिया देते उपलब्ध है".split()
)
# Who speaks to the reader, rather than about the sources.
TALK = frozenset(
    "i'm i'll you your let's please hello hi sorry thanks welcome hope bitte hallo gerne gern usted hola gracias espero"
    " मैं आप आपको आपके मुझे कृपया नमस्ते धन्यवाद".split()
)
POLITE = frozenset("Sie Ihnen Ihr Ihre Ihren Ihrem Ihrer Ihres".split())  # no names
# A statement of these alone states nothing of the matter: "Of course!", "Great question."
SMALL_TALK = frozenset(
    "course great good nice excellent question correct right exactly okay ok happy glad hope help helps helpful welcome thanks thank"
    " sorry depends else anything hello hi"
    " gute guter frage richtig genau stimmt klar gern gerne hoffe hilft helfe helfen weiter bitte beachten kommt darauf hallo danke"
    " buena pregunta correcto exacto supuesto espero ayude ayudar depende hola gracias"
    " बिल्कुल सही ज़रूर अच्छा नमस्ते धन्यवाद".split()
)
I_SAY = frozenset("i ich yo मैं".split())
KNOWING = frozenset("know find answer determine weiß finde finden beantworten sé encuentro जानता जानती पता".split())
REFUSING = frozenset("unable cannot lack lacks insufficient fehlen fehlt faltan असमर्थ अभाव".split())
# "The owner is not mentioned", and "The owner is unknown".
TOLD = frozenset(
    "mentioned specified stated named given provided listed described documented indicated disclosed known clear available"
    " erwähnt angegeben beschrieben mencionado mencionada especificado especificada indicado indicada claro"
    " उल्लेख बताया ज्ञात".split()
)
UNTOLD = frozenset(
    "unclear unknown unspecified unstated unmentioned unbekannt unklar desconocido desconocida अज्ञात".split()
)
ASKING = frozenset(
    "who whom whose what which when where why how whether if wer wen wem was welche welcher wann wo warum wie ob"
    " quién qué cuál cuándo dónde cómo si कौन क्या कब कहाँ".split()
)
NONE = frozenset("no nobody none kein keine keiner niemand ningún ninguna nadie".split())
WEAK = frozenset(
    "without neither nor none nothing nowhere nobody ohne weder nichts nirgends sin ni nada tampoco बिना कभी".split()
)
NOUNS_CAPITAL = frozenset(
    "der die das und ist den dem des ein eine wurde wurden nicht mit auf für im von zu werden sind muss müssen kann können haben"
    " oder auch wird".split()
)
# Words that add little: a paraphrase may have them or not.
LIGHT = frozenset(
    "per among more most less least very usually often normally sometimes typically generally mainly mostly both before after later"
    " early during until since between within still yet just even while again always ever first last perhaps possibly probably"
    " such like including example instance well because due several various other others another each every all any some one"
    " someone anyone something anything everything else so too only up out over under off around through toward towards upon"
    " against along across back down now today then there here come came went go put set made make take took got get let known"
    " seen considered regarded thus hence although though however despite whether either way ways thing things kind"
    " type part able try tried want around people person number place days nowadays today currently presently recently eventually heavily simply time times term fact case reason result"
    " mehr meist oft auch noch nur schon sehr viele viel einige andere anderen dabei dazu dann so sowie bis seit nach vor"
    " während zwischen unter über gegen ohne durch alle jeder jede sich ich du wir er sie es ihr ihre ihren ihrer ihrem ihnen pro seine seinen man dass weil wenn"
    " genannt bekannt sogenannte etwa rund circa"
    " más menos muy también antes después durante entre hasta desde todo todos toda cada otro otros otra muchos algunos así"
    " ya sólo solo cuando donde porque aunque llamado llamada conocido conocida cerca aproximadamente"
    " अधिक बहुत सबसे कुछ सभी अन्य लगभग साथ बाद पहले दौरान तथा एवं अपने अपनी अपना उन्होंने उनके इसके रूप होने होता होती".split()
)
# With one of these at its beginning a sentence goes on from the one before.
PRONOUNS = frozenset(
    "it they he she this these those its their his her such er sie es dies diese dieser dieses seine ihre deren"
    " ello esto este esta estos estas ellos ellas él ella su sus यह ये वह वे इस इन उस उन उसका उनका इसका इसके उनके".split()
)
# A noun behind one of these was named before.
DEFINITE = PRONOUNS | frozenset(
    "the both such said former latter der die das den dem des beide el la los las ambos dicho dicha".split()
)
# A noun follows these (in Hindi, comes before).
BEFORE_NOUNS = frozenset(
    "the a an of in on at by with for as from to their his her its and or called named than into between under der die das den"
    " dem des ein eine einen einem einer von im in am zu zum zur mit auf für bei aus als und oder durch el la los las un una de"
    " del en con por para como al y o su a".split()
)
AFTER_NOUNS = frozenset("का के की को में से ने पर और".split())
ENGLISH = frozenset(
    "war die man hat son sin once elf mil mar mai ni con sino gut bis sie art".split()
)  # mean something else there
# Names if they are in capital letters, and common words of some language if not.
CAPITALS = frozenset("it who un la de es se al als der des dem bis ser im".split())
LANGUAGES = {
    "en": frozenset(
        "the of and is was were are in to it its by that which with for from has had what who when where why how did does".split()
    ),
    "de": NOUNS_CAPITAL,
    "es": frozenset("el la los las de del y es fue en que una un por con se su para al era".split()),
    "hi": frozenset("का के की है में और को से था ने पर एक हैं थे थी".split()),
}

# Words that stand for each other; each row is compared as its first.
_SAME = (
    "begin began begun beginning start started starting starts commence commenced|big large great huge|build built building"
    " builds construct constructed|make made makes making|take took taken|write wrote written|find found finding discover"
    " discovered|lead led leads leading|hold held holds|give gave given gives|know known knew|become became becomes|win won"
    " wins|fight fought|grow grew grown|rise rose risen|fall fell fallen|go went gone goes|get got gotten|say said says|see"
    " saw seen|buy bought purchase purchased|sell sold|send sent|come came comes|call called named name known termed titled"
    " nicknamed|die died dead death|bear born birth|located situated lies lie lay found|about around approximately roughly"
    " circa some estimated nearly|use used uses using utilize utilized employ employed|also too additionally|percent"
    " percentage prozent porcentaje प्रतिशत|people persons inhabitants residents population person|country nation countries"
    " nations|film movie films movies|city town cities towns|strong powerful strongest|kill killed killing|help helped assist"
    " assistance|show showed shown shows|need needed needs require required requires|because since due|car cars automobile|"
    "war wars|child children kids kid|man men|woman women female females|male males|wife wives|life lives living live lived|"
    "km kilometre kilometres kilometer kilometers|m metre metres meter meters|kg kilogram kilograms kilogramme|mi mile miles|"
    "ft foot feet|usa us america american americans|uk britain british|france french|spain spanish|england english|"
    "germany german germans|italy italian italians|china chinese|greece greek greeks|netherlands dutch|denmark danish danes"
    " dane|poland polish|turkey turkish|scotland scottish|wales welsh|ireland irish|sweden swedish swedes|norway norwegian"
    " norwegians|switzerland swiss|japan japanese|mongolia mongol mongols mongolian|viking vikings|year years annual yearly|"
    "century centuries|stop stopped end ended ending finish finished|create created make|study studied studies|choose chose"
    " chosen select selected|keep kept|leave left|lose lost|speak spoke spoken|think thought believe believed|pay paid|run"
    " ran runs|more over above|less fewer under below|teach taught|earth planet world|wurde wurden|gebaut erbaut errichtet|"
    "begann beginnen beginn|groß große großen größe|nahm nehmen|gab geben|stadt städte|land länder|jahr jahre jahren|"
    "año años|ciudad ciudades|país países"
)
SAME = {word: row.split()[0] for row in reversed(_SAME.split("|")) for word in row.split()}

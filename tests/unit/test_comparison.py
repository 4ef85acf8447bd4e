"""Which questions compare, and which documents they name."""

from __future__ import annotations

import pytest

from ragq.rag.comparison import compares, find_named

COMPARING = [
    "Compare the two contracts.",
    "What is the difference between plan A and plan B?",
    "Kafka vs. RabbitMQ: which is faster?",
    "How does the new policy differ from the old one?",
    "How are the two offers different?",
    "Vergleiche beide Verträge.",
    "Worin unterscheiden sich Tarif A und Tarif B?",
    "Was ist der Unterschied zwischen A und B?",
    "Die Preise im Vergleich",
    "¿Cuál es la diferencia entre el plan A y el plan B?",
    "Compara los dos contratos.",
    "Comparación de los precios",
    "योजना A और योजना B में क्या अंतर है?",
    "दोनों अनुबंधों की तुलना करें।",
    "इन दोनों में क्या फ़र्क है?",
]
NOT_COMPARING = [
    "What happened between 1990 and 2000?",
    "Which company built the harbour?",
    "Are different colours allowed?",
    "Wem gegenüber haftet der Mieter?",
    "¿Quién comparte la casa?",
    "अंतरिक्ष में पहला मनुष्य कौन था?",
    "अंतरराष्ट्रीय हवाई अड्डा कहाँ है?",
]


@pytest.mark.parametrize("question", COMPARING)
def test_questions_that_compare(question: str) -> None:
    assert compares(question)


@pytest.mark.parametrize("question", NOT_COMPARING)
def test_questions_that_do_not(question: str) -> None:
    assert not compares(question)


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("What does the annual report of 2023 say?", {"annual_report_2023.pdf"}),
        ("What does the report say?", set()),
        ("Is PPR-9087 older than INV-2043?", {"PPR-9087 plan.pdf", "INV-2043.pdf"}),
        ("Is PPR 9087 old?", set()),
        ("Is v2 of the plan valid?", set()),
        ("Was steht im Handbuch der Stadt?", {"docs/Handbuch der Stadt.md"}),
        ("Who was born in 17?", set()),
    ],
)
def test_documents_are_named_by_all_words_of_their_name_or_by_a_code_in_it(question: str, named: set[str]) -> None:
    names = ["annual_report_2023.pdf", "PPR-9087 plan.pdf", "INV-2043.pdf", "docs/Handbuch der Stadt.md", "17.txt"]
    assert find_named(question, [*names, "contract v2 final.docx"]) == named

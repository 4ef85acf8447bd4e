// The page's entry point.

import { loadConversations } from "./conversations.js";
import { loadDocuments } from "./documents.js";
import { showCitedPassage } from "./passage.js";
import { resume } from "./question.js";
import { loadStores } from "./stores.js";
import { begin } from "./unlock.js";
import "./uploads.js";

await begin();
await Promise.all([loadConversations(), loadStores(loadDocuments).then(loadDocuments), resume(), showCitedPassage()]);

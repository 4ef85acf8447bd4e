// The page's entry point.

import { loadDocuments } from "./documents.js";
import { showCitedPassage } from "./passage.js";
import { resume } from "./question.js";
import { begin } from "./unlock.js";

await begin();
await Promise.all([loadDocuments(), resume(), showCitedPassage()]);

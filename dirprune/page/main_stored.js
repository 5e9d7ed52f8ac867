// The page of one study, with everything that it needs in one file.

import { find } from "./dom.js";
import { showPage } from "./page.js";
import { StoredKnowledge } from "./stored.js";

await showPage(new StoredKnowledge(JSON.parse(find("study").textContent)));

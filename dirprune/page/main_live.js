// The page of all studies of an MLflow server.

import { LiveKnowledge } from "./live.js";
import { showPage } from "./page.js";

await showPage(new LiveKnowledge());

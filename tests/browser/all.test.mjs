// One process and one test after another: each plays video, and the machine may be small.
import "./play.test.mjs";
import "./overview.test.mjs";
import "./live.test.mjs";

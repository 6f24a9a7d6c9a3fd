// What the published package does not ask yet, in its own form: targeted fields (RFC 9213), cache
// groups (RFC 9875), serving stale (RFC 5861), parts, and updates by 304 and HEAD. Every one is
// required of nearcast.

/** A response that is stored; the next request follows 3 s later. */
const store = (fields, more = {}) => ({ response_headers: fields, setup: true, pause_after: true, ...more });
/** The same, with the next request at once. */
const storeAndGo = (fields, more = {}) => ({ response_headers: fields, setup: true, ...more });
const cached = (more = {}) => ({ expected_type: "cached", ...more });
const fetched = (more = {}) => ({ expected_type: "not_cached", ...more });
const test = (id, name, ...requests) => ({ id, name, requests });

const CDN = "CDN-Cache-Control";
/** Not compared with what arrives: the field may be rewritten on the way. */
const quiet = (name, value) => [name, value, false];
/** How the edge answers when the origin hangs up and nothing may be served stale. */
const badGateway = {
  expected_status: 502,
  expected_response_text: null,
  expected_response_headers: ["Proxy-Status"],
  expected_response_headers_missing: ["Server-Request-Count"],
};

const targeted = [
  test("nc-cdn-max-age", "reuses by CDN-Cache-Control alone", store([quiet(CDN, "max-age=3600")]), cached()),
  test("nc-cdn-max-age-huge", "takes a lifetime beyond 32 bits", store([quiet(CDN, "max-age=99999999999")]), cached()),
  test("nc-cdn-max-age-0", "does not reuse at max-age=0", store([quiet(CDN, "max-age=0")]), fetched()),
  test("nc-cdn-age", "counts Age", store([["Date", 0], quiet(CDN, "max-age=3600"), ["Age", "7200"]]), fetched()),
  test("nc-cdn-extension", "skips what it does not know", store([quiet(CDN, "foobar;a=1, max-age=3600")]), cached()),
  test("nc-cdn-expires-past", "forgets Expires", store([quiet(CDN, "max-age=3600"), ["Expires", -10000], ["Date", 0]]), cached()),
  test("nc-cdn-expires-future", "forgets Expires both ways", store([quiet(CDN, "max-age=0"), ["Expires", 10000], ["Date", 0]]), fetched()),
  test("nc-cdn-longer", "prefers the longer targeted lifetime", store([["Cache-Control", "max-age=1"], quiet(CDN, "max-age=3600")]), cached()),
  test("nc-cdn-shorter", "prefers the shorter targeted lifetime", store([["Cache-Control", "max-age=3600"], quiet(CDN, "max-age=1")]), fetched()),
  test("nc-cdn-private", "obeys a targeted private", store([quiet(CDN, "private"), ["Cache-Control", "max-age=3600"]]), fetched()),
  test("nc-cdn-no-cache", "obeys a targeted no-cache", store([quiet(CDN, "no-cache"), ["Cache-Control", "max-age=3600"]]), fetched()),
  test("nc-cdn-no-store", "obeys a targeted no-store", store([quiet(CDN, "no-store"), ["Cache-Control", "max-age=3600"]]), fetched()),
  test("nc-cdn-over-no-store", "stores against Cache-Control: no-store", store([quiet(CDN, "max-age=3600"), ["Cache-Control", "no-store"]]), cached()),
  test("nc-cdn-malformed", "takes a field that is no dictionary for absent", store([quiet(CDN, "max-age=3600, &&&"), ["Cache-Control", "no-store"]]), fetched()),
  test("nc-cdn-wrong-type", "takes a lifetime that is a string for absent", store([quiet(CDN, 'max-age="3600"'), ["Cache-Control", "no-store"]]), fetched()),
  test("nc-cdn-wrong-case", "takes a key with capitals for malformed", store([quiet(CDN, "MaX-aGe=3600"), ["Cache-Control", "max-age=1"]]), fetched()),
  test("nc-cdn-two-lines", "reads two lines as one", store([quiet(CDN, "foo"), quiet(CDN, "max-age=3600"), ["Cache-Control", "no-store"]]), cached()),
  test("nc-cdn-before-surrogate", "goes before Surrogate-Control", store([quiet(CDN, "max-age=3600"), quiet("Surrogate-Control", "no-store")]), cached()),
  test("nc-cdn-passed-on", "is passed on to the next cache", {
    response_headers: [["Cache-Control", "max-age=3600"], quiet(CDN, "foo")],
    expected_response_headers: [[CDN, "foo"]],
  }),
];

const staleForbidden = ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"];
const stale = [
  ...staleForbidden.map((directive) =>
    test(`nc-stale-close-${directive}`, `answers 502, nothing stale, under ${directive}`, store([["Cache-Control", `max-age=2, ${directive}`]]), {
      disconnect: true,
      ...badGateway,
    })),
  test("nc-stale-while-revalidate", "serves stale while it revalidates", store([["Cache-Control", "max-age=1, stale-while-revalidate=3600"], ["ETag", '"abc"']]), cached()),
  test(
    "nc-stale-while-revalidate-over",
    "asks the origin once that time is over",
    store([["Cache-Control", "max-age=1, stale-while-revalidate=4"], ["ETag", '"abc"']]),
    cached({ setup: true, pause_after: true, response_headers: [quiet("Cache-Control", "no-cache"), quiet("ETag", '"def"')] }),
    { expected_response_headers: [["Client-Request-Count", "3"]] },
  ),
  test("nc-stale-if-error-503", "serves stale for a 503 within stale-if-error", store([["Cache-Control", "max-age=2, stale-if-error=60"]]), cached({
    response_status: [503, "Service Unavailable"],
    expected_status: 200,
  })),
  test("nc-stale-if-error-over", "passes a 503 on once stale-if-error is over", store([["Cache-Control", "max-age=1, stale-if-error=1"]]), fetched({
    response_status: [503, "Service Unavailable"],
  })),
];

const BODY = "0123456789A";
const whole = (fields = []) => storeAndGo([["Cache-Control", "max-age=3600"], ...fields], { response_body: BODY });
const range = (value, ...fields) => ({ request_headers: [["Range", value], ...fields] });
const part = (text, contentRange) => cached({
  expected_status: 206,
  expected_response_text: text,
  expected_response_headers: [["Content-Range", contentRange], ["Content-Length", String(text.length)]],
});
const parts = [
  test("nc-part-first", "serves the first bytes", whole(), { ...range("bytes=0-1"), ...part("01", "bytes 0-1/11") }),
  test("nc-part-open", "serves all bytes from one on", whole(), { ...range("bytes=9-"), ...part("9A", "bytes 9-10/11") }),
  test("nc-part-suffix", "serves the last bytes", whole(), { ...range("bytes=-3"), ...part("89A", "bytes 8-10/11") }),
  test("nc-part-beyond", "cuts a range at the end", whole(), { ...range("bytes=10-9223372036854775808"), ...part("A", "bytes 10-10/11") }),
  test("nc-part-none", "answers 416 past the end", whole(), {
    ...range("bytes=11-"),
    expected_status: 416,
    expected_response_text: null,
    expected_response_headers: [["Content-Range", "bytes */11"]],
  }),
  test("nc-part-malformed", "serves the whole for a malformed range", whole(), { ...range("bytes=5-1"), ...cached({ expected_response_text: BODY }) }),
  test("nc-part-other-unit", "serves the whole for another unit", whole(), { ...range("items=0-1"), ...cached({ expected_response_text: BODY }) }),
  test("nc-part-if-range", "serves a part where If-Range holds", whole([["ETag", '"a"']]), { ...range("bytes=0-1", ["If-Range", '"a"']), ...part("01", "bytes 0-1/11") }),
  test("nc-part-if-range-other", "serves the whole where it does not", whole([["ETag", '"a"']]), { ...range("bytes=0-1", ["If-Range", '"b"']), ...cached({ expected_response_text: BODY }) }),
  test("nc-part-if-range-weak", "never holds If-Range by a weak tag", whole([["ETag", 'W/"a"']]), { ...range("bytes=0-1", ["If-Range", 'W/"a"']), ...cached({ expected_response_text: BODY }) }),
];

const LONG_UNCHANGED = ["Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"];
const soonStale = (...fields) => store([["Cache-Control", "max-age=2"], ["Date", 0], ...fields]);
const updates = [
  test(
    "nc-304-renews",
    "a 304 renews fields and freshness, and keeps what it does not name",
    soonStale(["ETag", '"a"'], ["A", "1"], ["B", "1"]),
    {
      response_headers: [["Cache-Control", "max-age=3600"], ["Date", 0], ["ETag", '"a"'], ["A", "2"]],
      expected_type: "etag_validated",
      expected_response_headers: [["A", "2"], ["B", "1"]],
      pause_after: true,
    },
    cached({ expected_response_headers: [["A", "2"], ["B", "1"]] }),
  ),
  test(
    "nc-304-age",
    "a 304 ends the age that a response came with",
    store([["Cache-Control", "max-age=32"], ["Date", 0], ["Age", "30"], LONG_UNCHANGED]),
    { response_headers: [LONG_UNCHANGED, ["Date", 0]], expected_type: "lm_validated" },
    cached(),
  ),
  test("nc-head-fresh", "answers HEAD from a fresh response to GET", storeAndGo([["Cache-Control", "max-age=3600"], ["A", "1"]]), cached({
    request_method: "HEAD",
    expected_response_headers: [["A", "1"]],
  })),
  test(
    "nc-head-renews",
    "an equal answer to HEAD renews what is stored",
    soonStale(["ETag", '"a"'], ["A", "1"], ["B", "1"]),
    { request_method: "HEAD", expected_method: "HEAD", response_headers: [["Cache-Control", "max-age=3600"], ["ETag", '"a"'], ["A", "2"]] },
    cached({ expected_response_headers: [["A", "2"], ["B", "1"]] }),
  ),
  test(
    "nc-head-outdates",
    "another entity tag in an answer to HEAD makes what is stored stale",
    storeAndGo([["Cache-Control", "max-age=3600"], ["ETag", '"a"']]),
    { request_method: "HEAD", request_headers: [["Cache-Control", "no-cache"]], expected_method: "HEAD", response_headers: [["ETag", '"b"']] },
    fetched(),
  ),
];

const conditions = [
  test("nc-304-fields", "a 304 of its own carries what RFC 9110 asks for", storeAndGo([["Cache-Control", "max-age=3600"], ["ETag", '"a"'], ["Vary", "Foo"], ["Date", 0]]), cached({
    request_headers: [["If-None-Match", 'W/"a"']],
    expected_status: 304,
    expected_response_headers: [["ETag", '"a"'], ["Cache-Control", "max-age=3600"], ["Vary", "Foo"], "Date", "Age"],
  })),
  test("nc-if-match", "serves where If-Match holds", storeAndGo([["Cache-Control", "max-age=3600"], ["ETag", '"a"']]), cached({ request_headers: [["If-Match", '"a"']] })),
  test("nc-if-match-other", "leaves a refusal by If-Match to the origin", storeAndGo([["Cache-Control", "max-age=3600"], ["ETag", '"a"']]), fetched({
    request_headers: [["If-Match", '"b"']],
    expected_request_headers: [["If-Match", '"b"']],
    response_status: [412, "Precondition Failed"],
  })),
];

const group = (name) => ["Cache-Groups", `"${name}"`];
const invalidation = [
  test(
    "nc-group-invalidated",
    "an unsafe request's answer invalidates a cache group",
    storeAndGo([["Cache-Control", "max-age=3600"], group("nc-1")], { filename: "one" }),
    { request_method: "POST", request_body: "x", filename: "two", setup: true, response_headers: [["Cache-Group-Invalidation", '"nc-1"']] },
    fetched({ filename: "one" }),
  ),
  test(
    "nc-group-other",
    "it leaves other groups alone",
    storeAndGo([["Cache-Control", "max-age=3600"], group("nc-2")], { filename: "one" }),
    { request_method: "POST", request_body: "x", filename: "two", setup: true, response_headers: [["Cache-Group-Invalidation", '"nc-3"']] },
    cached({ filename: "one" }),
  ),
];

const listed = [
  test(
    "nc-no-cache-listed",
    'does not reuse the fields that no-cache="..." lists',
    store([quiet("Cache-Control", 'max-age=3600, no-cache="a, B"'), ["A", "1"], ["B", "2"], ["C", "3"]]),
    cached({ expected_response_headers: [["C", "3"]], expected_response_headers_missing: ["A", "B"] }),
  ),
  test("nc-private-listed", 'does not store what private="..." lists', store([quiet("Cache-Control", 'max-age=3600, private="a"'), ["A", "1"]]), fetched()),
];

const ways = [
  test("nc-tells-the-origin", "tells the origin who asks", {
    expected_request_headers: ["Via", "CDN-Loop", "Surrogate-Capability"],
    expected_response_headers: ["Via", "Cache-Status"],
  }),
  test("nc-tells-the-client", "tells the client how old a response is and where it comes from", store([["Cache-Control", "max-age=3600"]]), cached({
    expected_response_headers: [["Age", ">", 1], "Cache-Status", "Via", "Date"],
  })),
];

export default [
  { name: "Targeted fields", id: "nc-cdn", tests: targeted },
  { name: "Serving stale", id: "nc-stale", tests: stale },
  { name: "Parts", id: "nc-parts", tests: parts },
  { name: "Updates by 304 and HEAD", id: "nc-updates", tests: updates },
  { name: "Conditions", id: "nc-conditions", tests: conditions },
  { name: "Cache groups", id: "nc-groups", tests: invalidation },
  { name: "Lists of fields", id: "nc-listed", tests: listed },
  { name: "Traces left", id: "nc-traces", tests: ways },
];

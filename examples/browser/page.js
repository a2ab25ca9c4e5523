// Sends an order until the service has responded. All tries of an order have the same key and the same body.

const api = document.body.dataset.api;
const form = document.getElementById("order");
const button = form.querySelector("button");
const statusLine = document.getElementById("status");
const booked = document.getElementById("booked");

// A response with one of these statuses or codes asks for a retry. Every other response is final.
const RETRIED_STATUSES = [408, 425, 429];
const RETRIED_CODES = ["idempotency_key_in_flight", "idempotency_overtaken", "idempotency_body_incomplete"];
// The order is booked, or may be booked, but the service has no response to replay. A new order could be a second one.
const OPEN_CODES = ["idempotency_response_not_kept", "idempotency_outcome_unknown"];

// Longer than the service takes for any order. A retry during the first try gets `idempotency_key_in_flight`.
const TRY_MILLIS = 30_000;
const MAX_PAUSE_SECONDS = 30;
// The service forgets a key after 24 hours. Then the same request would be a new order.
const MAX_AGE_MILLIS = 23 * 60 * 60 * 1000;

// The order that is being sent, as `{key, body, since, mayBeBooked}`. It is stored before the first try and removed when
// its outcome is known. `mayBeBooked` means that a try may have booked it. The session storage survives a reload, and
// belongs to one tab. To survive the end of the tab, use IndexedDB.
const pending = {
  load: () => JSON.parse(sessionStorage.getItem("order")),
  store: (order) => sessionStorage.setItem("order", JSON.stringify(order)),
  remove: () => sessionStorage.removeItem("order"),
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { tea, grams } = Object.fromEntries(new FormData(form));
  // A browser provides `randomUUID` only to pages that it loaded over HTTPS or from this machine.
  const body = JSON.stringify({ tea, grams: Number(grams) });
  pending.store({ key: crypto.randomUUID(), body, since: Date.now() });
  send();
});

// The page was loaded again before the outcome of its order was known.
if (pending.load()) {
  pending.store({ ...pending.load(), mayBeBooked: true });
  send();
}

async function send() {
  const order = pending.load();
  button.disabled = true;
  statusLine.textContent = "Sending the order.";
  for (let tries = 1; ; tries += 1) {
    // A browser may restore a tab after days.
    if (Date.now() - order.since > MAX_AGE_MILLIS) {
      pending.remove();
      statusLine.textContent = "It is not known whether an earlier order was booked, and its key has expired. Ask the shop first.";
      break;
    }
    const result = await attempt(order);
    if (result.outcome && order.mayBeBooked && isRefusal(result.outcome)) {
      // An earlier try may have booked the order, and then the login expired, for example. With a new key, the order could be
      // booked twice. So the page keeps the key and leaves the button disabled. A reload sends the same order again.
      const { status, json } = result.outcome;
      statusLine.textContent = `The service refused the retry: ${json.title ?? status}. An earlier try may have booked the order. The order is kept: log in and reload this page, or ask the shop.`;
      return;
    }
    if (result.outcome) {
      pending.remove();
      show(result.outcome);
      break;
    }
    order.mayBeBooked = true;
    pending.store(order);
    // The random time keeps pages that failed together from sending together.
    const backoff = Math.random() * Math.min(MAX_PAUSE_SECONDS, 2 ** tries);
    const seconds = Math.max(result.retryAfter ?? 0, backoff);
    statusLine.textContent = `${result.reason} The order is kept. Try ${tries + 1} is in ${Math.ceil(seconds)} s.`;
    await pause(seconds * 1000, result.retryAfter === undefined);
  }
  button.disabled = false;
}

// Returns the outcome of the order, or why its outcome is still unknown.
async function attempt(order) {
  let response, text;
  try {
    response = await fetch(`${api}/orders`, {
      method: "POST",
      // A real page gets its token from a login.
      headers: { Authorization: "Bearer alice", "Content-Type": "application/json", "Idempotency-Key": order.key },
      body: order.body,
      signal: AbortSignal.timeout(TRY_MILLIS),
    });
    text = await response.text();
  } catch (error) {
    return { reason: reasonOf(error) };
  }
  const json = parse(text);
  if (response.status >= 500 || RETRIED_STATUSES.includes(response.status) || RETRIED_CODES.includes(json.code)) {
    // `null` unless the service exposes this header.
    const retryAfter = Number(response.headers.get("Retry-After")) || 0;
    return { reason: `The service asks for a retry (${json.code ?? response.status}).`, retryAfter };
  }
  // Without `Access-Control-Expose-Headers`, a replay looks like a first response.
  const isReplay = response.headers.get("Idempotency-Replayed") === "true";
  const isOpen = OPEN_CODES.includes(json.code);
  return { outcome: { isBooked: response.ok, isOpen, status: response.status, json, isReplay } };
}

// Whether the response may come from a check before the service looks at the key, such as that of the login.
function isRefusal({ isBooked, isOpen, isReplay }) {
  return !isBooked && !isOpen && !isReplay;
}

// The browser does not tell the page whether the network or a missing permission of the service is the reason.
function reasonOf(error) {
  if (!navigator.onLine) {
    return "The browser is offline.";
  }
  if (error.name === "TimeoutError") {
    return "The service did not respond in time.";
  }
  return "No response: the service cannot be reached, or does not allow this page. The browser's console says which.";
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

// Ends early when the browser is online again, unless the service has said when to retry.
function pause(millis, endsOnline) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, millis);
    if (endsOnline) {
      addEventListener("online", done);
    }
  });
}

function show({ isBooked, isOpen, status, json, isReplay }) {
  if (isOpen) {
    // `instance` names the record, so the shop finds the order.
    statusLine.textContent = `The order may be booked, so do not order again. Ask the shop about ${json.instance ?? "it"}.`;
    return;
  }
  const kind = isReplay ? "a replay: an earlier try had already reached the service" : "the first response";
  if (!isBooked) {
    statusLine.textContent = `The service refused the order: ${json.title ?? status}. This is ${kind}.`;
    return;
  }
  const text = `Order ${json.number}: ${json.grams} g of ${json.tea}. This is ${kind}.`;
  statusLine.textContent = text;
  booked.append(Object.assign(document.createElement("li"), { textContent: text }));
}

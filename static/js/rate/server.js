// The endpoints of the rater, and the CSRF token that must be renewed after signing in again.

/** A sentence of the server's own, where it has one; lists of validation errors are none. */
function readReason(data) {
  return typeof data?.detail === "string" ? data.detail : null;
}

/** Whether nobody has answered who could: it may be tried again as it is. */
export const isAway = (status) => status === 0 || status >= 500;

/** Whether this account may no longer rate: signing in again would not help. */
function isRoleLost(data) {
  return data?.code === "no-rater-role";
}

/** What a batch of judgments was answered with -> {ok, status, results?, isRefusal, reason, isRoleLost, retryAfter: s}. */
export function readAnswer(response, data) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  return { ok: response.ok, status: response.status, results: data?.results, isRefusal: data?.detail !== undefined, reason: readReason(data), isRoleLost: isRoleLost(data), retryAfter };
}

// A connection that neither answers nor breaks, as after a computer's sleep, would hold back all that waits behind it.
export const PATIENCE = 30000;

// What is under way survives leaving the page, but no more than 64 KiB of it at a time: browsers refuse what goes beyond as if there
// were no network. The margin is for what else counts in some of them.
export const KEPT_ALIVE = 56000;
const encoder = new TextEncoder();

export function createServer({ config, fetch: get = (...args) => globalThis.fetch(...args), readConfig, pageUrl, patience = PATIENCE }) {
  let token = config.csrf;
  let keptAlive = 0; // Bytes of all requests that are under way so.
  /** Also the body of an answer has to be there by then. */
  const fetch = (url, options) => get(url, { ...options, signal: AbortSignal.timeout(patience) });

  async function post(url, content, method = "POST") {
    const body = JSON.stringify(content);
    const size = encoder.encode(body).length;
    const keepalive = keptAlive + size <= KEPT_ALIVE;
    if (keepalive) keptAlive += size;
    try {
      return await fetch(url, {
        method,
        credentials: "same-origin",
        keepalive,
        headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token },
        body,
      });
    } finally {
      if (keepalive) keptAlive -= size;
    }
  }

  /** Signing in again changes the token. The page itself says the new one, and whose it is: somebody else's is not taken. */
  async function renewToken() {
    const response = await fetch(pageUrl, { credentials: "same-origin", headers: { Accept: "text/html" } });
    if (!response.ok) return false;
    const fresh = readConfig(await response.text());
    if (!fresh || String(fresh.user_id) !== String(config.user_id)) return false;
    token = fresh.csrf;
    return true;
  }

  async function postSigned(url, content, method) {
    const response = await post(url, content, method);
    const refused = response.status === 401 || (response.status === 403 && !isRoleLost(await response.clone().json().catch(() => null)));
    return refused && (await renewToken()) ? post(url, content, method) : response;
  }

  return {
    /** -> {ok, status, questions?, items?, guideline_revision?, guideline_news?, guidelines_html?, question_revision?, question_news?}; items carry expiresAt in ms of this computer's clock. */
    async lease(count, options = {}) {
      const response = await postSigned(config.lease_url, { count, ...options });
      const data = await response.json().catch(() => null);
      if (!response.ok || !data) return { ok: false, status: response.ok ? 0 : response.status, reason: readReason(data), isRoleLost: isRoleLost(data), examplesUrl: data?.examples_url ?? null };
      const skew = Date.now() - (Date.parse(response.headers.get("Date") ?? "") || Date.now());
      for (const item of data.items) item.expiresAt = (Date.parse(item.expires_at) || Infinity) + skew;
      return { ok: true, status: response.status, ...data };
    },
    /** -> {ok, status, reason} */
    async saveKeys(keys) {
      const response = await postSigned(config.keys_url, { keys }, "PUT");
      return { ok: response.ok, status: response.status, reason: readReason(await response.json().catch(() => null)) };
    },
    /** The rater knows what changed up to these: {guideline_revision} or {question_revision}. */
    async sayRead(revisions) {
      await postSigned(config.guidelines_read_url, revisions);
    },
    /** An answer to an example, which may be sent again -> {ok, status, reason, data: what is right and why}. */
    async answerExample(answer) {
      const response = await postSigned(config.url, answer);
      const data = await response.json().catch(() => null);
      return { ok: response.ok && data !== null, status: response.status, reason: readReason(data), data };
    },
    async sendJudgments(judgments) {
      const response = await postSigned(config.judgments_url, { judgments });
      return readAnswer(response, await response.json().catch(() => null));
    },
  };
}

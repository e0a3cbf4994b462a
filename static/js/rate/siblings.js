// What tabs of one person tell each other, with a connection or without. What other devices do is heard from the server.

/**
 * onJudged(record): another tab on this campaign has judged, skipped or reported something; onUndone(record, item): it took that back, and has the
 * item in hand, if it was not judged again at once; onSettled(record, isRefused): the server has heard of that
 * undo, and did not take it if isRefused; of other records only refusals are told, whatever campaign they are of; onResent(record): what was refused is on its way again.
 */
export function createSiblings({ user, campaign, onJudged, onUndone, onSettled, onResent, Channel = globalThis.BroadcastChannel }) {
  const channel = Channel ? new Channel(`atelier-rate-${user}`) : null;
  channel?.addEventListener("message", ({ data }) => {
    // Any tab delivers for all, on whatever campaign it is.
    if ("isRefused" in data) onSettled(data.record, data.isRefused);
    else if (data.campaign !== campaign) return;
    else if (data.isResent) onResent(data.record);
    else if (data.record.action === "undo") onUndone(data.record, data.item);
    else onJudged(data.record);
  });

  return {
    /** item: of an undo, what may be judged again. */
    tell: (record, item) => channel?.postMessage({ campaign, record: chainOf(record), item }),
    tellSettled: (record, isRefused) => channel?.postMessage({ record: chainOf(record), isRefused }),
    tellResent: (record) => channel?.postMessage({ campaign, record: chainOf(record), isResent: true }),
  };
}

const chainOf = ({ id, assignment, action, supersedes }) => ({ id, assignment, action, supersedes });

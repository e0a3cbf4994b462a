// Why there is nothing to judge, in words, and what can be done about it. Pure.

/**
 * known: {isRoleLost, isGone, reason (the server's own words), examplesUrl, status (of the last answer; undefined where none was asked for), failures, aside (how many
 * items were put aside), isExhausted}; lookAgain() is what most of the buttons do. Returns {state, title, text, actions, isOver}, as `view.showMessage` takes
 * them, or null while the first items are on their way. isOver: whether all is judged.
 */
export function whyNothing({ isRoleLost, isGone, reason, examplesUrl, status, failures, aside, isExhausted }, lookAgain) {
  const home = { label: "To the start", href: "/", primary: true };
  const again = { label: "Look again", run: lookAgain };
  if (isRoleLost) {
    return { state: "over", title: "This account may not rate now", text: "An operator can give it the role back. What you judged and is not sent yet stays in this browser until then.", actions: [again, home] };
  }
  if (isGone && examplesUrl) {
    return { state: "over", title: "Examples come first", text: reason ?? "The examples of the guidelines have changed.", actions: [{ label: "Answer the examples", href: examplesUrl, primary: true, focus: true }] };
  }
  if (isGone) {
    return { state: "over", title: "This campaign is not open to you", text: reason ?? "It was paused or closed, or you are no longer one of its raters. What you judged is kept.", actions: [home, again] };
  }
  if (status === 401 || status === 403) {
    return { state: "error", title: "You are signed out", text: "Sign in again in another tab, then go on here. Nothing is lost.", actions: [{ label: "Go on", run: lookAgain, primary: true }] };
  }
  if (status !== undefined && failures > 0) {
    return { state: "error", title: "The server cannot be reached", text: "It is tried again every few seconds. Your judgments are kept in this browser.", actions: [{ label: "Try now", run: lookAgain, primary: true }] };
  }
  if (aside) {
    return { state: "error", title: "Pictures cannot be loaded", text: "The server does not give the pictures of what is left. They are tried again every half minute.", actions: [{ ...again, primary: true }, { ...home, primary: false }] };
  }
  if (isExhausted) {
    return { state: "over", title: "Nothing is left for you here", text: "Thank you. Everything that this campaign had for you is judged.", actions: [home, again], isOver: true };
  }
  return null;
}

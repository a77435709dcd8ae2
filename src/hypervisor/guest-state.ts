/**
 * created: made, never run. off: the guest has ended. panicked: it cannot go on, and its memory is
 * still there. incoming: it waits for the state of another one. empty: there is no machine; one can
 * be made, or the state of another one taken.
 */
export type GuestState =
  | "created"
  | "running"
  | "paused"
  | "off"
  | "panicked"
  | "incoming"
  | "empty";

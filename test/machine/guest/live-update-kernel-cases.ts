/** The names of the cases of the story live-update-kernel, for both sides of the serial line. */
export const kernelCases = {
  before: [
    "the device: nobody else opens it while it is open",
    "a name: 63 bytes are taken, 64 refused",
    "a name that an outgoing session has is refused, EEXIST",
    "a token that is used is refused, a file that is preserved as well",
    "a session knows its name",
    "the last descriptor of an outgoing session, closed: its file and its name are free again",
    "64 MiB are preserved",
  ],
  after: [
    "64 MiB are retrieved, and have the same hash",
    "a token is retrieved twice, and is the same file",
    "what was retrieved outlives the finish and the session; nothing more is retrieved",
    "an outgoing session that was closed did not come along",
    "an outgoing session whose last descriptor another process held came along",
    "the last descriptor of a retrieved session, closed: the session is gone",
    "a retrieved session that another process holds is there still, and goes with it",
    "a session with a name of 63 bytes came along",
  ],
} as const;

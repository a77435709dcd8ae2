/** What hosts ask, by its path: the wire, and never used for something else. */
export const identityPaths = {
  challenges: "/v1/challenges",
  enrolments: "/v1/enrolments",
  sessions: "/v1/sessions",
  statement: "/v1/statement",
  key: "/v1/session/key",
  pins: "/v1/session/pins",
  close: "/v1/session/close",
} as const;

import { defaultControlSocket, defaultListen, defaultStateDirectory } from "./protocol.ts";

/** Flags of an authority, and of whoever asks one: also of what stands on an authority. */

export const jsonFlag = { json: { type: "boolean", description: "Print JSON" } } as const;
export const logFlags = {
  "log-json": { type: "boolean", description: "Log one JSON object a line" },
  verbose: {
    type: "boolean",
    alias: "v",
    description: "Log also what is only of use to a developer",
  },
} as const;

/** Where the authority is: on this host by its control socket, or elsewhere by TLS and a token. */
export const clientFlags = {
  "control-socket": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultControlSocket,
    description: "Where this host's authority takes requests of root",
  },
  authority: {
    type: "string",
    valueHint: "https://name:port",
    description: "Ask an authority on another host; needs --pin and --token-file",
  },
  pin: {
    type: "string",
    repeatable: true,
    valueHint: "sha-256",
    description: "Hash of the certificate that it shows, as identity certificate list says",
  },
  "token-file": {
    type: "string",
    valueHint: "file",
    complete: "file",
    description: "The operator's token, in a file that its owner alone may read",
  },
} as const;

/** What an authority is told when it is started. */
export const authorityFlags = {
  listen: {
    type: "string",
    repeatable: true,
    valueHint: "address:port",
    description: `Listen here by TLS (default ${defaultListen}); port 0 takes a free one`,
  },
  address: {
    type: "string",
    valueHint: "https://name:port",
    description: "How hosts reach it, as enrolment tokens tell them; the first --listen else",
  },
  "state-directory": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultStateDirectory,
    description: "Keep the database, the audit log, the key and the certificates here",
  },
  "control-socket": {
    ...clientFlags["control-socket"],
    description: "Listen here for requests of this host",
  },
  "command-uid": {
    type: "string",
    repeatable: true,
    valueHint: "uid",
    description: "A user who may command here, by number; its own when none is given",
  },
  retain: {
    type: "string",
    repeatable: true,
    valueHint: "name=age,size",
    description: "Keep a bucket, or the audit log, for so long and so much (store storage)",
  },
  ...logFlags,
} as const;

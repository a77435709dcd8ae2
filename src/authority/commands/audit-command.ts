import { type Command, defineCommand, subCommandsOf } from "../../command-line/definition.ts";
import { ExitCode } from "../../units/exit-code.ts";

/** Where the authority keeps its audit log. */
const defaultAuditDirectory = "/var/lib/hostler/authority/audit";

/** Exit code of both: the log is not as it was written. It could be read, so it is none of 111. */
const brokenChain = 112;

const directoryFlag = {
  directory: {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultAuditDirectory,
    description: "The folder of the log; nothing is written there",
  },
} as const;

const listCommand = defineCommand({
  meta: {
    name: "list",
    description: "Show who did what, also while the authority writes",
    examples: [
      ["hostler audit list -f", "The newest hundred, and what comes"],
      ["hostler audit list --who 'operator alice' --verb 'identity.*'", "What one of them did"],
      ["hostler audit list -n all --json > audit.jsonl", "All of it, for programs"],
    ],
    exitCodes: {
      [ExitCode.refused]: "the log cannot be read",
      [brokenChain]: "lines were changed: they are left out, and hostler audit verify names them",
    },
  },
  args: {
    count: {
      type: "string",
      alias: "n",
      valueHint: "number|all",
      description: "The newest so many that match: 100, or with --after all of them",
    },
    who: {
      type: "string",
      valueHint: "pattern",
      description: "Only by these, such as 'operator alice' or 'host web-*'; * is any text",
    },
    verb: { type: "string", valueHint: "pattern", description: "Only such calls: 'identity.*'" },
    object: { type: "string", valueHint: "pattern", description: "Only on these: 'host web-1'" },
    after: {
      type: "string",
      valueHint: "sequence",
      description: "Only records after this one",
    },
    own: {
      type: "boolean",
      description: "Also the log's own records: signatures, openings, what was dropped",
    },
    follow: { type: "boolean", alias: "f", description: "Go on with what comes" },
    ...directoryFlag,
    json: { type: "boolean", description: "Print one JSON object a line" },
  },
  run: async (args) => await (await import("./audit-list.ts")).runAuditList(args),
});

const verifyCommand = defineCommand({
  meta: {
    name: "verify",
    description: "Say whether the log is as it was written: its chain, its signatures, its head",
    examples: [
      ["hostler audit verify", "The chain, and the signatures by the keys that it names itself"],
      [
        "hostler audit verify --key audit.pub --head 4711:3f…",
        "Also who signed it, and that it still has the record that was noted as its head",
      ],
    ],
    exitCodes: {
      [ExitCode.done]: "intact",
      [ExitCode.refused]: "the log cannot be read",
      [brokenChain]: "broken: records were changed, removed, put in, or are not signed",
    },
  },
  args: {
    head: {
      type: "string",
      repeatable: true,
      valueHint: "sequence:hash",
      description: "A head that verify printed earlier, and that was noted elsewhere",
    },
    key: {
      type: "string",
      repeatable: true,
      valueHint: "file",
      complete: "file",
      description: "Public keys (PEM) that alone may have signed the log",
    },
    ...directoryFlag,
    json: { type: "boolean", description: "Print JSON" },
  },
  run: async (args) => await (await import("./audit-verify.ts")).runAuditVerify(args),
});

/** `hostler audit …` */
export const auditCommand: Command = defineCommand({
  meta: {
    name: "audit",
    description: "Show the log of who did what, and prove that nobody has changed it",
    examples: [
      ["hostler audit list", "Show the newest hundred"],
      ["hostler audit verify", "Prove that the log is as it was written"],
    ],
  },
  subCommands: subCommandsOf(listCommand, verifyCommand),
});

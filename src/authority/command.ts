import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { authorityFlags, clientFlags, jsonFlag } from "./flags.ts";
import { defaultHostDirectory, defaultStateDirectory } from "./protocol.ts";

const outFlag = {
  out: {
    type: "string",
    valueHint: "file",
    complete: "file",
    description: "Write it into this new file, 0600, in place of stdout",
  },
} as const;

const hostDirectoryFlag = {
  directory: {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultHostDirectory,
    description: "Where this host keeps its key, and what it knows of its authority",
  },
} as const;

const authorityCommand = defineCommand({
  meta: {
    name: "authority",
    description: "Say who speaks: let hosts in by their keys, and operators by their tokens",
    examples: [
      ["hostler identity authority", "For this host alone: it listens on loopback"],
      [
        "hostler identity authority --listen 0.0.0.0:7443 --address https://control.example:7443",
        "For hosts elsewhere, which reach it by that address",
      ],
      [
        "hostler identity authority --retain audit=17520h,2GiB",
        "Keep who did what for two years, and at most 2 GiB of it",
      ],
    ],
    exitCodes: { 111: "another one runs here, or the system refused" },
  },
  args: authorityFlags,
  run: async (args) => await (await import("./commands/daemon.ts")).runAuthorityCommand(args),
});

const hostArgument = { host: { type: "positional", description: "The host's name" } } as const;
const operatorArgument = {
  operator: { type: "positional", description: "The operator's name" },
} as const;

const tokenCommand = defineCommand({
  meta: {
    name: "token",
    description: "Tokens that let one host in, once",
    examples: [["hostler identity token create web-1 --out web-1.token", "Carry it to the host"]],
  },
  subCommands: subCommandsOf(
    defineCommand({
      meta: {
        name: "create",
        description: "Make a token that lets one host in, once; it is told only here",
        examples: [
          ["hostler identity token create web-1 --out web-1.token", "Good for an hour"],
          ["hostler identity token create web-1 --replace", "For a host that lost its key"],
        ],
      },
      args: {
        host: { type: "positional", description: "The name that the host is to have" },
        expires: {
          type: "string",
          valueHint: "duration",
          default: "1h",
          description: "How long it is good, at most 168h",
        },
        replace: {
          type: "boolean",
          description: "For a host that is enrolled: its keys are revoked when the token is used",
        },
        ...outFlag,
        ...clientFlags,
        ...jsonFlag,
      },
      run: async (args) => await (await import("./commands/token.ts")).runCreate(args),
    }),
    defineCommand({
      meta: {
        name: "list",
        description: "List tokens, used and expired ones too; no secret is shown",
        examples: [["hostler identity token list", "Who made them, and what became of them"]],
      },
      args: { ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/token.ts")).runList(args),
    }),
    defineCommand({
      meta: {
        name: "revoke",
        description: "Have a token that was not used let nobody in any more",
        examples: [["hostler identity token revoke 3f9a02c177be51d0aa11", "By its id"]],
      },
      args: {
        id: { type: "positional", description: "The id, as token list shows it" },
        ...clientFlags,
        ...jsonFlag,
      },
      run: async (args) => await (await import("./commands/token.ts")).runRevoke(args),
    }),
  ),
});

const hostCommand = defineCommand({
  meta: {
    name: "host",
    description: "Hosts that were let in: list them, and end it",
    examples: [["hostler identity host list", "All hosts, revoked ones too"]],
  },
  subCommands: subCommandsOf(
    defineCommand({
      meta: {
        name: "list",
        description: "List hosts: their keys, their sessions, and whether one is there twice",
        examples: [["hostler identity host list --json", "For a program"]],
      },
      args: { ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/host.ts")).runList(args),
    }),
    defineCommand({
      meta: {
        name: "show",
        description: "Show one host, with its open sessions",
        examples: [["hostler identity host show web-1", "Keys, boots, clones, sessions"]],
      },
      args: { ...hostArgument, ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/host.ts")).runShow(args),
    }),
    defineCommand({
      meta: {
        name: "revoke",
        description: "End what a host does, at once; its keys never count again",
        examples: [["hostler identity host revoke web-1", "Its open sessions end now"]],
      },
      args: { ...hostArgument, ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/host.ts")).runRevoke(args),
    }),
    defineCommand({
      meta: {
        name: "acknowledge",
        description: "Say that the clones of a host were seen to; the next one is reported again",
        examples: [["hostler identity host acknowledge web-1", "It is flagged no more"]],
      },
      args: { ...hostArgument, ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/host.ts")).runAcknowledge(args),
    }),
    defineCommand({
      meta: {
        name: "remove",
        description: "Forget a revoked host; its keys stay revoked",
        examples: [["hostler identity host remove web-1", "The name is free for another host"]],
      },
      args: { ...hostArgument, ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/host.ts")).runRemove(args),
    }),
  ),
});

const operatorCommand = defineCommand({
  meta: {
    name: "operator",
    description: "People and programs that may ask an authority for something",
    examples: [
      ["hostler identity operator add alice --role operate --out alice.token", "Let one in"],
    ],
  },
  subCommands: subCommandsOf(
    defineCommand({
      meta: {
        name: "add",
        description: "Add an operator, and print its token, which is told only here",
        examples: [
          [
            "hostler identity operator add alice --role operate --out alice.token",
            "May change things",
          ],
          ["hostler identity operator add bob --permit hold", "And a permission by its name"],
        ],
      },
      args: {
        ...operatorArgument,
        role: {
          type: "enum",
          options: ["view", "operate", "admin"],
          default: "view",
          description: "What it may do; each includes the ones before it",
        },
        permit: {
          type: "string",
          repeatable: true,
          valueHint: "permission",
          description: "wipe, hold, exec, console, rollout or release: no role includes these",
        },
        ...outFlag,
        ...clientFlags,
        ...jsonFlag,
      },
      run: async (args) => await (await import("./commands/operator.ts")).runAdd(args),
    }),
    defineCommand({
      meta: {
        name: "list",
        description: "List operators, revoked ones too",
        examples: [["hostler identity operator list", "Roles and permissions"]],
      },
      args: { ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/operator.ts")).runList(args),
    }),
    defineCommand({
      meta: {
        name: "rotate",
        description: "Print another token for an operator; the old one ends",
        examples: [
          [
            "hostler identity operator rotate alice --out alice-2.token",
            "The old one ends at once",
          ],
          ["hostler identity operator rotate alice --overlap 1h", "The old one ends in an hour"],
        ],
      },
      args: {
        ...operatorArgument,
        overlap: {
          type: "string",
          valueHint: "duration",
          default: "0s",
          description: "How long the old token is good beside the new one, at most 720h",
        },
        ...outFlag,
        ...clientFlags,
        ...jsonFlag,
      },
      run: async (args) => await (await import("./commands/operator.ts")).runRotate(args),
    }),
    defineCommand({
      meta: {
        name: "revoke",
        description: "End what an operator does, at once; its tokens never count again",
        examples: [["hostler identity operator revoke bob", "What it has open ends now"]],
      },
      args: { ...operatorArgument, ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/operator.ts")).runRevoke(args),
    }),
  ),
});

const certificateCommand = defineCommand({
  meta: {
    name: "certificate",
    description: "The certificate that an authority shows, and the one that follows it",
    examples: [["hostler identity certificate list", "Its hash is what --pin asks for"]],
  },
  subCommands: subCommandsOf(
    defineCommand({
      meta: {
        name: "list",
        description: "Show the certificate in use, the announced one, and the hosts that lack it",
        examples: [["hostler identity certificate list --json", "Whole hashes"]],
      },
      args: { ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/certificate.ts")).runList(args),
    }),
    defineCommand({
      meta: {
        name: "rotate",
        description: "Make the next certificate, and announce it to hosts beside the old one",
        examples: [
          ["hostler identity certificate rotate", "Hosts take it with their next session"],
        ],
      },
      args: { ...clientFlags, ...jsonFlag },
      run: async (args) => await (await import("./commands/certificate.ts")).runRotate(args),
    }),
    defineCommand({
      meta: {
        name: "finish",
        description: "Show the announced certificate, when all hosts have confirmed it",
        examples: [
          ["hostler identity certificate finish", "The old one counts no more"],
          ["hostler identity certificate finish --force", "Without hosts that are away for good"],
        ],
      },
      args: {
        force: {
          type: "boolean",
          description: "Also when some hosts have not confirmed that they trust it",
        },
        ...clientFlags,
        ...jsonFlag,
      },
      run: async (args) => await (await import("./commands/certificate.ts")).runFinish(args),
    }),
  ),
});

const eventsCommand = defineCommand({
  meta: {
    name: "events",
    description: "Show what happens to hosts, tokens, sessions, operators and certificates",
    examples: [["hostler identity events -f --json", "One JSON object a line, for ever"]],
  },
  args: {
    follow: { type: "boolean", alias: "f", description: "Wait for what comes" },
    after: { type: "string", valueHint: "id", description: "Only what came after this event" },
    ...clientFlags,
    json: { type: "boolean", description: "Print one JSON object a line" },
  },
  run: async (args) => await (await import("./commands/events.ts")).runEvents(args),
});

const whoamiCommand = defineCommand({
  meta: {
    name: "whoami",
    description: "Show who the authority takes the caller for",
    examples: [["hostler identity whoami", "Root of the authority's own host"]],
  },
  args: { ...clientFlags, ...jsonFlag },
  run: async (args) => await (await import("./commands/whoami.ts")).runWhoami(args),
});

const enrolCommand = defineCommand({
  meta: {
    name: "enrol",
    description: "Make this host's key, and have the authority let it in by a token",
    examples: [
      ["hostler identity enrol < web-1.token", "On the host; the key is made here and stays here"],
      ["hostler identity enrol --token-file web-1.token", "The same"],
    ],
    exitCodes: { 111: "the authority refused, or cannot be reached; nothing is half-done" },
  },
  args: {
    "token-file": {
      type: "string",
      valueHint: "file",
      complete: "file",
      default: "-",
      description: "The token that the authority made; - is stdin",
    },
    ...hostDirectoryFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/enrol.ts")).runEnrol(args),
});

const rotateCommand = defineCommand({
  meta: {
    name: "rotate",
    description: "Give this host another key; the old one counts until the new one was used",
    examples: [["hostler identity rotate", "It can be killed at any moment, and run again"]],
    exitCodes: { 111: "the authority refused, or cannot be reached; the old key is good" },
  },
  args: { ...hostDirectoryFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/enrol.ts")).runRotate(args),
});

const showCommand = defineCommand({
  meta: {
    name: "show",
    description: "Show this host's identity: its name, its key, and whom it trusts",
    examples: [["hostler identity show --json", "Nobody is asked: it is read from the disk"]],
  },
  args: { ...hostDirectoryFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/enrol.ts")).runShow(args),
});

const sessionCommand = defineCommand({
  meta: {
    name: "session",
    description: "Open a session with the authority, and keep it until it ends",
    examples: [
      ["hostler identity session --once", "Prove the key, say who one is, and leave"],
      ["hostler identity session", "Stay; when the host is revoked it ends at once with 111"],
    ],
    exitCodes: { 111: "the authority refused or ended it, or cannot be reached" },
  },
  args: {
    once: { type: "boolean", description: "Leave when it is open" },
    ...hostDirectoryFlag,
    json: { type: "boolean", description: "Print one JSON object a line" },
  },
  run: async (args) => await (await import("./commands/session.ts")).runSession(args),
});

export const identityCommand: Command = defineCommand({
  meta: {
    name: "identity",
    description: "Say who hosts and operators are, let them in, and end it",
    examples: [
      ["hostler identity authority &", "The one that knows all others"],
      ["hostler identity token create web-1 --out web-1.token", "Let a host in"],
      ["hostler identity enrol < web-1.token", "On that host"],
    ],
  },
  subCommands: subCommandsOf(
    authorityCommand,
    tokenCommand,
    hostCommand,
    operatorCommand,
    certificateCommand,
    enrolCommand,
    showCommand,
    rotateCommand,
    sessionCommand,
    eventsCommand,
    whoamiCommand,
  ),
});

const stateDirectoryFlag = {
  "state-directory": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultStateDirectory,
    description: "The authority's state directory",
  },
} as const;

const storageCommand = defineCommand({
  meta: {
    name: "storage",
    description: "Show what is stored, its bounds, and the day on which it fills",
    examples: [["hostler store storage", "Of this host's authority"]],
  },
  args: { ...clientFlags, ...jsonFlag },
  run: async (args) => await (await import("./commands/store.ts")).runStorage(args),
});

const backupCommand = defineCommand({
  meta: {
    name: "backup",
    description: "Write a backup of the database while it is in use",
    examples: [["hostler store backup /srv/backups/authority-2026-11-28", "A new file, 0600"]],
  },
  args: {
    file: { type: "positional", complete: "file", description: "A file that is not there yet" },
    ...clientFlags,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/store.ts")).runBackup(args),
});

const restoreCommand = defineCommand({
  meta: {
    name: "restore",
    description: "Put a backup in the place of the database, while the authority is stopped",
    examples: [
      [
        "hostler store restore /srv/backups/authority-2026-11-28",
        "What was spent since stays spent; the former database is kept beside",
      ],
    ],
  },
  args: {
    file: { type: "positional", complete: "file", description: "What store backup wrote" },
    "without-ledger": {
      type: "boolean",
      description: "On another machine: take all that was issued before for spent",
    },
    ...stateDirectoryFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/store.ts")).runRestore(args),
});

const upgradeCommand = defineCommand({
  meta: {
    name: "upgrade",
    description: "Take the newest format of the database into use; an older hostler cannot read it",
    examples: [["hostler store upgrade", "When the new version of hostler is there to stay"]],
  },
  args: { ...clientFlags, ...jsonFlag },
  run: async (args) => await (await import("./commands/store.ts")).runUpgrade(args),
});

const verifyCommand = defineCommand({
  meta: {
    name: "verify",
    description: "Read a whole database, and say what is damaged",
    examples: [["hostler store verify", "While the authority is stopped"]],
  },
  args: { ...stateDirectoryFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/store.ts")).runVerify(args),
});

export const storeCommand: Command = defineCommand({
  meta: {
    name: "store",
    description: "Look after what an authority remembers: its size, backups, a restore",
    examples: [["hostler store storage", "What is stored, and when it fills"]],
  },
  subCommands: subCommandsOf(
    storageCommand,
    backupCommand,
    restoreCommand,
    verifyCommand,
    upgradeCommand,
  ),
});

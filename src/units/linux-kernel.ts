/** What a Linux kernel makes of its command line, its configuration and its release. */

/** One word of a kernel's command line. */
export interface KernelParameter {
  readonly name: string;
  /** Undefined for a word without "=". */
  readonly value: string | undefined;
}

/** What the kernel's isspace() takes for one, in bytes: lib/ctype.c. */
const space = /[\t-\r \u00a0]/;

/**
 * The words that the kernel takes for itself: those before "--", in their order. Quotes hold a
 * word together and are taken off at its ends alone: next_arg() in lib/cmdline.c.
 */
export function parseKernelCommandLine(text: string): KernelParameter[] {
  return splitKernelCommandLine(text).kernel;
}

/** @returns the words of the kernel, and those behind "--", which it hands to PID 1 */
export function splitKernelCommandLine(text: string): {
  readonly kernel: KernelParameter[];
  readonly init: KernelParameter[];
} {
  const words = splitWords(Buffer.from(text).toString("latin1")).map(readParameter);
  const end = words.findIndex(({ name, value }) => name === "--" && value === undefined);
  if (end < 0) return { kernel: words, init: [] };
  return { kernel: words.slice(0, end), init: words.slice(end + 1) };
}

/** Every character is one byte here, as the kernel looks at them. */
function splitWords(bytes: string): string[] {
  const words: string[] = [];
  let word = "";
  let isQuoted = false;
  for (const character of bytes) {
    if (!isQuoted && space.test(character)) {
      if (word !== "") words.push(word);
      word = "";
      continue;
    }
    if (character === '"') isQuoted = !isQuoted;
    word += character;
  }
  return word === "" ? words : [...words, word];
}

function readParameter(word: string): KernelParameter {
  const isQuoted = word.startsWith('"');
  const bare = isQuoted ? word.slice(1) : word;
  // A "=" in the first place is no separator for the kernel.
  const equals = bare.indexOf("=", 1);
  if (equals < 0) return { name: decode(isQuoted ? cutQuote(bare) : bare), value: undefined };
  const raw = bare.slice(equals + 1);
  const value = raw.startsWith('"') ? cutQuote(raw.slice(1)) : raw;
  return { name: decode(bare.slice(0, equals)), value: decode(isQuoted ? cutQuote(value) : value) };
}

function cutQuote(text: string): string {
  return text.endsWith('"') ? text.slice(0, -1) : text;
}

function decode(bytes: string): string {
  return Buffer.from(bytes, "latin1").toString();
}

/**
 * What a switch such as `kho=` is set to: the last word that the kernel understands wins, and
 * others leave it as it was (kstrtobool() in lib/kstrtox.c, called for each of them).
 * @returns undefined when no word sets it
 */
export function kernelSwitch(
  parameters: readonly KernelParameter[],
  name: string,
): boolean | undefined {
  return parameters
    .filter((parameter) => parameter.name === name)
    .map(({ value }) => readSwitch(value ?? ""))
    .findLast((setting) => setting !== undefined);
}

function readSwitch(value: string): boolean | undefined {
  if (/^([yt1]|on)/i.test(value)) return true;
  if (/^([nf0]|of)/i.test(value)) return false;
  return undefined;
}

/** A kernel's .config by option, such as CONFIG_KEXEC_FILE: "y"; what is not set is left out. */
export type KernelConfiguration = ReadonlyMap<string, string>;

/** @param text of /proc/config.gz, /boot/config-…, or what a kernel carries */
export function parseKernelConfiguration(text: string): KernelConfiguration {
  const options = new Map<string, string>();
  for (const [, name = "", value = ""] of text.matchAll(/^(CONFIG_\w+)=(.*)$/gm)) {
    options.set(name, value);
  }
  return options;
}

/** Whether the option is built in; a module ("m") is not. */
export function isBuiltIn(configuration: KernelConfiguration, option: string): boolean {
  return configuration.get(option) === "y";
}

/**
 * The command line that a kernel ends up with: one may be built in, before what is given or
 * instead of it (CONFIG_CMDLINE of x86 and arm64).
 */
export function effectiveCommandLine(
  configuration: KernelConfiguration | undefined,
  given: string,
): string {
  const quoted = configuration?.get("CONFIG_CMDLINE");
  if (configuration === undefined || quoted === undefined) return given;
  const builtIn = quoted.replace(/^"|"$/g, "").replace(/\\(.)/g, "$1");
  if (isBuiltIn(configuration, "CONFIG_CMDLINE_OVERRIDE")) return builtIn;
  if (isBuiltIn(configuration, "CONFIG_CMDLINE_FORCE")) return builtIn;
  if (isBuiltIn(configuration, "CONFIG_CMDLINE_BOOL")) return `${builtIn} ${given}`;
  return given === "" ? builtIn : given;
}

/** Whether a release such as "6.19.0-rc3-amd64" is that version ("6.19") or a later one. */
export function isReleaseAtLeast(release: string, version: string): boolean {
  const [major = 0, minor = 0] = release.split(/[.\-+]/).map(Number);
  const [leastMajor = 0, leastMinor = 0] = version.split(".").map(Number);
  return major > leastMajor || (major === leastMajor && minor >= leastMinor);
}

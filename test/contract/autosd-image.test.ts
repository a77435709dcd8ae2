/** images/autosd: the manifest by its published schema, and that its parts fit each other. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseConfiguration } from "../../src/process/configuration.ts";
import { repositoryRoot } from "../support/binary.ts";
import { validate } from "../support/json-schema.ts";
import { runProgram } from "../support/program.ts";
import { feature, program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { parseUnitFile } from "../support/unit-file.ts";

const folder = join(repositoryRoot, "images/autosd");
const compiled = "../../dist/hostler";

interface AddedFile {
  readonly path: string;
  readonly source_path?: string;
  readonly text?: string;
}

interface Content {
  readonly add_files: readonly AddedFile[];
  readonly chmod_files: readonly { readonly path: string; readonly mode: string }[];
  readonly add_symlinks: readonly { readonly link: string; readonly target: string }[];
  readonly systemd: { readonly enabled_services: readonly string[] };
}

interface Manifest {
  readonly name: string;
  readonly content: Content;
  readonly qm: { readonly content: Content };
}

const manifest = Bun.YAML.parse(
  readFileSync(join(folder, "hostler.aib.yml"), "utf8"),
) as unknown as Manifest;

const sides = [
  ["the host", manifest.content],
  ["QM", manifest.qm.content],
] as const;

/** The text of a file of a side, wherever the manifest takes it from. */
function textOf(content: Content, path: string): string {
  const found = content.add_files.find((file) => file.path === path);
  if (found === undefined) throw new Error(`The manifest adds no ${path}`);
  return found.text ?? readFileSync(join(folder, found.source_path ?? ""), "utf8");
}

describe("the AutoSD manifest", () => {
  test.each(sides)("%s: files stand where images may have them", (_side, content) => {
    for (const { path } of content.add_files) expect(path).toMatch(/^\/(etc|usr)\/(?!local\/)/);
  });

  test.each(sides)("%s: each file has one source, which exists", (_side, content) => {
    for (const { source_path, text } of content.add_files) {
      expect(source_path === undefined).toBe(text !== undefined);
      if (source_path === undefined || source_path === compiled) continue;
      expect(existsSync(join(folder, source_path))).toBe(true);
    }
  });

  test.each(sides)("%s: the program can be executed", (_side, content) => {
    expect(content.chmod_files).toContainEqual({ path: "/usr/bin/hostler", mode: "0755" });
  });

  test.each(sides)(
    "%s: what is enabled is there, and links lead to the program",
    (_side, content) => {
      for (const name of content.systemd.enabled_services) {
        expect(textOf(content, `/usr/lib/systemd/system/${name}`)).toContain("[Install]");
      }
      for (const { link, target } of content.add_symlinks) {
        expect(join(dirname(link), target)).toBe("/usr/bin/hostler");
        expect(["holden-agent", "holden-orchestrator"]).toContain(basename(link));
      }
    },
  );

  test("one file serves both sides: QM's is mounted from the host", () => {
    const quadlet = textOf(
      manifest.content,
      "/etc/containers/systemd/qm.container.d/10-hostler.conf",
    );
    const volumes = parseUnitFile(quadlet).get("Container.Volume");
    expect(volumes).toEqual(["/run/ipc:/run/ipc", "/usr/bin/hostler:/usr/bin/hostler:ro"]);
    const host = manifest.content.add_files.find(({ path }) => path === "/usr/bin/hostler");
    expect(host?.source_path).toBe(compiled);
    expect(textOf(manifest.qm.content, "/usr/bin/hostler")).toStartWith("#!/bin/sh\n");
  });

  test("the agent dials where the orchestrator listens, and the folder outlives both", () => {
    const units = "/usr/lib/systemd/system";
    const agent = textOf(
      manifest.qm.content,
      `${units}/hostler-process-agent.service.d/10-connect.conf`,
    );
    const [reset, command] = parseUnitFile(agent).get("Service.ExecStart") ?? [];
    const [, socket] = /--connect (\S+)$/.exec(command ?? "") ?? [];
    expect(reset).toBe("");
    const outcome = parseConfiguration("process.toml", textOf(manifest.content, processToml));
    if (outcome.kind === "refused") throw new Error(JSON.stringify(outcome.errors));
    expect(outcome.configuration.partitions[0]?.endpoint).toEqual({
      kind: "listen",
      path: socket ?? "",
    });
    const host = textOf(
      manifest.content,
      `${units}/hostler-process-orchestrator.service.d/10-ipc.conf`,
    );
    expect(parseUnitFile(host).get("Service.RuntimeDirectoryPreserve")).toEqual(["yes"]);
    expect(socket).toStartWith(`/run/${parseUnitFile(host).get("Service.RuntimeDirectory")}/`);
  });

  test("the configuration is valid, and nothing in it is warned of", () => {
    const outcome = parseConfiguration("process.toml", textOf(manifest.content, processToml));
    expect(outcome).toMatchObject({ kind: "ok", warnings: [] });
  });
});

const processToml = "/etc/hostler/process.toml";

const schemaPath = join(
  process.env["HOSTLER_SCHEMAS"] ?? "",
  "automotive-image-builder/manifest_schema.yml",
);
const schemas = feature("no schemas (HOSTLER_SCHEMAS)", () => existsSync(schemaPath));

skipUnless("the AutoSD manifest's schema", schemas, () => {
  const schema = Bun.YAML.parse(readFileSync(schemaPath, "utf8"));
  // Misspelt in the published schema: "items", "description".
  const ignored = ["item", "descrition"];

  test("takes the manifest", () => {
    expect(validate(manifest, schema, { ignored })).toEqual([]);
  });

  test("would refuse a file with a mode, and an unknown key", () => {
    const file = { path: "/usr/bin/hostler", source_path: compiled, mode: "0755" };
    const content = { ...manifest.content, add_files: [file] };
    expect(validate({ ...manifest, content }, schema, { ignored })).not.toEqual([]);
    expect(validate({ ...manifest, contents: {} }, schema, { ignored })).toHaveLength(1);
  });
});

skipUnless("the SELinux module", program("checkmodule", "checkpolicy"), () => {
  test("compiles", async () => {
    using scratch = temporaryFolder();
    const words = ["-M", "-m", "-o", scratch.file("hostler.mod"), join(folder, "hostler.te")];
    const { exitCode, stderr } = await runProgram(["checkmodule", ...words]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  });
});

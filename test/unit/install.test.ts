/** hostler install: what it decides, and where links of an image lead. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { installCommand } from "../../src/install/command.ts";
import { adviceOf } from "../../src/install/commands/advice.ts";
import type { InstallReport } from "../../src/install/install.ts";
import {
  decideInstall,
  decideRemove,
  FOLDER,
  type Found,
  type InstallOptions,
  type Item,
  itemsOf,
} from "../../src/install/items.ts";
import { placeInRoot, resolveInRoot } from "../../src/install/perform/rooted-path.ts";
import { roleNames, unitTexts } from "../../src/install/roles.ts";
import { isUntouched, renderUnit } from "../../src/install/unit-text.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const places = { prefix: "/usr/local", unitDirectory: "/etc/systemd/system" };
const pathsOf = (...roles: readonly string[]) => itemsOf(roles, places).map(({ path }) => path);

describe("roles", () => {
  test("the command line takes those that there are", () => {
    const role = installCommand.args?.["role"];
    expect(role?.type === "enum" ? role.options : []).toEqual([...roleNames]);
  });

  test("luod is what the seed's instructions need", () => {
    expect(pathsOf("luod")).toEqual([
      "/usr/local/bin/hostler",
      "/usr/local/sbin/luod",
      "/usr/local/bin/luoctl",
      "/etc/systemd/system/luod.service",
    ]);
  });

  test("some are links alone", () => {
    expect(pathsOf("luoctl", "holden-agent")).toEqual([
      "/usr/local/bin/hostler",
      "/usr/local/bin/luoctl",
      "/usr/local/bin/holden-agent",
    ]);
  });

  test("several have what they share once, and all has everything once", () => {
    const all = pathsOf("all");
    expect(pathsOf(...roleNames.slice(1))).toEqual(all);
    expect(new Set(all).size).toBe(all.length);
    const units = itemsOf(["all"], places).flatMap((item) =>
      item.kind === "unit" ? item.name : [],
    );
    expect(units.toSorted()).toEqual(Object.keys(unitTexts).toSorted());
  });
});

describe("a unit's text", () => {
  const name = "luod.service";

  test.each(Object.entries(unitTexts))("%s names the installed paths", (unit, text) => {
    const rendered = renderUnit(unit, text, "/opt/hostler");
    expect(rendered).not.toContain("/usr/");
    if (unit.endsWith(".service")) expect(rendered).toMatch(/^ExecStart=\/opt\/hostler\/s?bin\//m);
  });

  test("at the root itself has no double slash", () => {
    expect(renderUnit(name, unitTexts[name] ?? "", "/")).toContain("ExecStart=/sbin/luod\n");
  });

  test("is untouched until any byte after the digest changes, whatever wrote it", () => {
    const rendered = renderUnit(name, "[Service]\nExecStart=/usr/sbin/luod\n", "/usr");
    expect(isUntouched(rendered)).toBe(true);
    expect(isUntouched(`${rendered}\n`)).toBe(false);
    expect(isUntouched(rendered.replace("ExecStart", "execStart"))).toBe(false);
    expect(isUntouched(rendered.slice(0, -1))).toBe(false);
  });

  test("without a digest is somebody's", () => {
    expect(isUntouched(unitTexts[name] ?? "")).toBe(false);
    expect(isUntouched("")).toBe(false);
  });
});

const [program, link, unit] = itemsOf(["process-agent", "luoctl"], places) as [Item, Item, Item];
const folder: Found = { kind: "foreign", what: FOLDER };
const file: Found = { kind: "foreign", what: "a file" };

describe("decisions", () => {
  // What is found, then what is done without and with --force.
  const installing: [Found, string, string][] = [
    [{ kind: "absent" }, "create", "create"],
    [{ kind: "same" }, "keep", "keep"],
    [{ kind: "equivalent" }, "keep", "keep"],
    [{ kind: "former" }, "replace", "replace"],
    [{ kind: "changed" }, "leave", "replace"],
    [file, "refuse", "replace"],
    [folder, "refuse", "refuse"],
  ];
  test.each(installing)("installing where there is %j", (found, plain, forced) => {
    for (const item of [program, link, unit]) {
      expect(decideInstall(item, found, false).action as string).toBe(plain);
      expect(decideInstall(item, found, true).action as string).toBe(forced);
    }
  });

  const removing: [Found, string, string][] = [
    [{ kind: "absent" }, "keep", "keep"],
    [{ kind: "same" }, "remove", "remove"],
    [{ kind: "equivalent" }, "leave", "leave"],
    [{ kind: "changed" }, "leave", "remove"],
    [file, "leave", "leave"],
    [folder, "leave", "leave"],
  ];
  test.each(removing)("removing where there is %j", (found, plain, forced) => {
    for (const item of [program, link, unit]) {
      expect(decideRemove(item, found, false).action as string).toBe(plain);
      expect(decideRemove(item, found, true).action as string).toBe(forced);
    }
  });

  test("another version's unit goes; another version's program goes by its own hand", () => {
    expect(decideRemove(unit, { kind: "former" }, false).action).toBe("remove");
    expect(decideRemove(program, { kind: "former" }, false)).toMatchObject({
      action: "leave",
      reason: expect.stringContaining("/usr/local/bin/hostler install --remove"),
    });
    expect(decideRemove(program, { kind: "former" }, true).action).toBe("remove");
  });

  test("whatever is not done has its reason", () => {
    for (const [found] of [...installing, ...removing]) {
      for (const decide of [decideInstall, decideRemove]) {
        const { action, reason } = decide(unit, found, false);
        if (action === "leave" || action === "refuse") expect(reason).toBeDefined();
      }
    }
  });
});

describe("paths in an image", () => {
  test("links are followed as the image will see them", () => {
    using image = temporaryFolder();
    mkdirSync(image.file("usr/bin"), { recursive: true });
    symlinkSync("/usr/bin", image.file("bin"));
    symlinkSync("bin", image.file("usr/sbin"));
    symlinkSync("../../../../../../etc", image.file("usr/escape"));
    const root = image.path;
    expect(placeInRoot(root, "/bin/hostler")).toBe(join(root, "usr/bin/hostler"));
    expect(placeInRoot(root, "/usr/sbin/luod")).toBe(join(root, "usr/bin/luod"));
    expect(placeInRoot(root, "/usr/escape/shadow")).toBe(join(root, "etc/shadow"));
    expect(placeInRoot(root, "/not/there/yet")).toBe(join(root, "not/there/yet"));
    expect(placeInRoot(root, "/../../etc/x")).toBe(join(root, "etc/x"));
  });

  test("the last part is followed when a link is asked where it leads, else not", () => {
    using image = temporaryFolder();
    symlinkSync("/elsewhere", image.file("luod"));
    expect(placeInRoot(image.path, "/luod")).toBe(image.file("luod"));
    expect(resolveInRoot(image.path, "/luod")).toBe(image.file("elsewhere"));
  });

  test("a ring of links is refused", () => {
    using image = temporaryFolder();
    symlinkSync("b", image.file("a"));
    symlinkSync("a", image.file("b"));
    expect(() => placeInRoot(image.path, "/a/x")).toThrow("at most 40 links");
  });
});

describe("what is said at the end", () => {
  const options: InstallOptions = {
    ...places,
    roles: ["luod"],
    root: "/",
    remove: false,
    force: false,
    dryRun: false,
  };
  const steps = itemsOf(["luod"], places).map((item) => ({ item, action: "create" as const }));
  const report: InstallReport = {
    steps,
    isAccepted: true,
    reload: "done",
    active: [],
    systemd: 257,
    isBooted: true,
  };

  test("the command that starts it", () => {
    expect(adviceOf(options, report)).toEqual([
      "To start it now and at every boot: systemctl enable --now luod",
    ]);
  });

  test("in an image, the command for images", () => {
    const advice = adviceOf({ ...options, root: "/mnt/i" }, { ...report, isBooted: false });
    expect(advice).toEqual([
      "To have it started in the image: systemctl --root=/mnt/i enable luod",
    ]);
  });

  test("a unit where systemd does not look, by its path", () => {
    const unitDirectory = "/opt/units";
    const other = itemsOf(["luod"], { ...places, unitDirectory });
    const advice = adviceOf(
      { ...options, unitDirectory },
      { ...report, steps: other.map((item) => ({ item, action: "create" })) },
    );
    expect(advice.join("\n")).toEndWith("enable --now /opt/units/luod.service");
  });

  test("what runs is restarted by the operator, and only where something has changed", () => {
    const active = ["luod.service"];
    expect(adviceOf(options, { ...report, active })).toEqual([
      "What runs goes on as it was, until: systemctl restart luod.service",
    ]);
    const kept = steps.map(({ item }) => ({ item, action: "keep" as const }));
    expect(adviceOf(options, { ...report, active, steps: kept })).toEqual([]);
  });

  test("a systemd that cannot spare luod from its last kill", () => {
    const advice = adviceOf(options, { ...report, systemd: 254 }).join("\n");
    expect(advice).toContain("luoctl kexec --by reboot");
  });
});

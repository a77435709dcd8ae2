import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { parseErrorTotal, parseInterrupts, readCounters } from "../../../src/hardware/counters.ts";
import { MOST_FAULTS, Sampler } from "../../../src/hardware/sampler.ts";
import { readingSchema } from "../../../src/hardware/samples.ts";
import { chipKey, findSensors } from "../../../src/hardware/sensors.ts";
import { fixtureHost, healthyHost } from "../../support/hardware/fixture-host.ts";
import { waitFor } from "../../support/wait-for.ts";

const chip = (files: Record<string, string>, name = "jc42", device = "platform/jc42.24") => ({
  name,
  device,
  files,
});

describe("sensors", () => {
  test("of all kinds have a unit, a label and what is critical", () => {
    const files = {
      temp1_input: "45500",
      temp1_crit: "100000",
      temp2_input: "-5000",
      temp2_crit: "65261850",
      fan1_input: "5400",
      fan1_label: "Front",
      power1_average: "215000000",
      power2_average: "1",
      power2_input: "99500000",
      in0_input: "12096",
      in0_crit: "13200",
      curr1_input: "1250",
      freq1_input: "1800000000",
      temp3_max: "1",
      pwm1: "255",
    };
    using host = fixtureHost({ chips: [chip(files)] });
    const { sensors } = new Sampler(host.tree).read(0);
    expect(sensors.map(({ kind, key, value, critical }) => [kind, key, value, critical])).toEqual([
      ["current", "jc42.24/curr1", 1.25, null],
      ["fan", "jc42.24/Front", 5_400, null],
      ["frequency", "jc42.24/freq1", 1_800, null],
      ["voltage", "jc42.24/in0", 12.096, 13.2],
      ["power", "jc42.24/power1", 215, null],
      ["power", "jc42.24/power2", 99.5, null],
      ["temperature", "jc42.24/temp1", 45.5, 100],
      ["temperature", "jc42.24/temp2", -5, null],
    ]);
  });

  test("keep their keys when drivers are loaded in another order", () => {
    const one = chip({ temp1_input: "1000" }, "coretemp", "platform/coretemp.0");
    const other = chip({ temp1_input: "2000" }, "nvme", "pci0000:00/0000:01:00.0/nvme/nvme0");
    const third = chip({ temp1_input: "3000" }, "nvme", "pci0000:00/0000:02:00.0/nvme/nvme1");
    using host = fixtureHost({ chips: [one, other, third] });
    using turned = fixtureHost({ chips: [third, other, one] });
    const keys = (of: typeof host) =>
      findSensors(of.tree)
        .map(({ key }) => key)
        .sort();
    expect(keys(host)).toEqual(keys(turned));
    expect(keys(host)).toEqual([
      "coretemp.0/temp1",
      "nvme 0000:01:00.0/temp1",
      "nvme 0000:02:00.0/temp1",
    ]);
  });

  test.each([
    ["k10temp", "sys/devices/pci0000:00/0000:00:18.3", "k10temp 0000:00:18.3"],
    [
      "drivetemp",
      "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/x/0:0:0:0",
      "drivetemp 0000:00:17.0",
    ],
    ["jc42", "sys/devices/pci0000:00/0000:00:1f.4/i2c-0/0-0018", "jc42 0-0018"],
    ["acpitz", "sys/devices/virtual/thermal/thermal_zone0", "acpitz"],
    ["amdgpu", null, "amdgpu"],
  ])("of %s at %s are %s", (name, place, key) => expect(chipKey(name, place)).toBe(key));

  test("two of one name are told apart", () => {
    const files = {
      temp1_input: "1000",
      temp1_label: "Sensor",
      temp2_input: "2000",
      temp2_label: "Sensor",
    };
    using host = fixtureHost({ chips: [chip(files)] });
    expect(findSensors(host.tree).map(({ key }) => key)).toEqual([
      "jc42.24/Sensor",
      "jc42.24/Sensor #2",
    ]);
  });

  test("a thermal zone that a chip covers is not told twice", () => {
    const zone = (number: number, type: string) => ({
      [`sys/class/thermal/thermal_zone${number}/type`]: `${type}\n`,
      [`sys/class/thermal/thermal_zone${number}/temp`]: "41000\n",
      [`sys/class/thermal/thermal_zone${number}/trip_point_0_type`]: "passive\n",
      [`sys/class/thermal/thermal_zone${number}/trip_point_0_temp`]: "80000\n",
      [`sys/class/thermal/thermal_zone${number}/trip_point_1_type`]: "critical\n",
      [`sys/class/thermal/thermal_zone${number}/trip_point_1_temp`]: "105000\n",
    });
    const files = {
      ...zone(0, "x86_pkg_temp"),
      ...zone(1, "acpitz"),
      ...zone(2, "x86_pkg_temp"),
      "sys/class/thermal/thermal_zone1/hwmon0/name": "acpitz\n",
    };
    using host = fixtureHost({ files });
    const { sensors } = new Sampler(host.tree).read(0);
    expect(sensors.map(({ key, value, critical }) => [key, value, critical])).toEqual([
      ["thermal/x86_pkg_temp", 41, 105],
      ["thermal/x86_pkg_temp #2", 41, 105],
    ]);
  });
});

test("a chip that gets another's number keeps its key", () => {
  using host = fixtureHost({
    chips: [
      chip({ temp1_input: "1000" }, "coretemp", "platform/coretemp.0"),
      chip({ temp1_input: "2000" }, "jc42", "platform/jc42.24"),
    ],
  });
  const sampler = new Sampler(host.tree);
  const values = () => sampler.read(0).sensors.map(({ key, value }) => `${key}=${value}`);
  expect(values()).toEqual(["coretemp.0/temp1=1", "jc42.24/temp1=2"]);
  for (const number of [0, 1]) host.remove(`sys/class/hwmon/hwmon${number}`);
  host.link("sys/class/hwmon/hwmon0", "sys/devices/platform/jc42.24/hwmon/hwmon1");
  host.link("sys/class/hwmon/hwmon1", "sys/devices/platform/coretemp.0/hwmon/hwmon0");
  expect(values()).toEqual(["jc42.24/temp1=2", "coretemp.0/temp1=1"]);
});

describe("what was there and tells nothing", () => {
  const files = { temp1_input: "45000", temp2_input: "46000", fan1_input: "900" };
  const at = "sys/class/hwmon/hwmon0";

  test("is missing, with the kernel's reason, and comes back", () => {
    using host = fixtureHost({ chips: [chip(files)] });
    const sampler = new Sampler(host.tree);
    expect(sampler.read(0).missing).toEqual([]);
    host.refuse(`${at}/temp1_input`, "EIO");
    host.refuse(`${at}/fan1_input`, "ENODATA");
    expect(sampler.read(1).missing).toEqual([
      { key: "fan jc42.24/fan1", reason: "ENODATA" },
      { key: "temperature jc42.24/temp1", reason: "EIO" },
    ]);
    host.refuse(`${at}/temp1_input`, undefined);
    host.refuse(`${at}/fan1_input`, undefined);
    expect(sampler.read(2).missing).toEqual([]);
  });

  test("is missing when its whole chip has gone", () => {
    using host = fixtureHost({ chips: [chip(files)] });
    const sampler = new Sampler(host.tree);
    sampler.read(0);
    host.remove("sys/class/hwmon/hwmon0");
    const { missing, sensors } = sampler.read(1);
    expect(sensors).toEqual([]);
    expect(missing.map(({ reason }) => reason)).toEqual(["gone", "gone", "gone"]);
  });

  test("is what its chip calls faulty, and what is no number", () => {
    using host = fixtureHost({ chips: [chip({ ...files, temp1_fault: "0" })] });
    const sampler = new Sampler(host.tree);
    sampler.read(0);
    host.file(`${at}/temp1_fault`, "1\n");
    host.file(`${at}/temp2_input`, "nan\n");
    expect(sampler.read(1).missing).toEqual([
      { key: "temperature jc42.24/temp1", reason: "its chip says that it is faulty" },
      { key: "temperature jc42.24/temp2", reason: 'not a number: "nan"' },
    ]);
  });

  test("of what never was fitted is nothing, and of what never answered it is told", () => {
    using host = fixtureHost({ chips: [chip(files)] });
    host.refuse(`${at}/temp1_input`, "ENODATA");
    host.refuse(`${at}/temp2_input`, "EIO");
    expect(new Sampler(host.tree).read(0).missing).toEqual([
      { key: "temperature jc42.24/temp2", reason: "EIO" },
    ]);
  });

  test("a disk that does not answer holds no other sensor up", async () => {
    const disk = chip({ temp1_input: "38000" }, "nvme", "pci0000:00/0000:01:00.0/nvme/nvme0");
    using host = fixtureHost({ chips: [chip(files), disk] });
    const answers: PromiseWithResolvers<string>[] = [];
    const sampler = new Sampler(host.tree, () => {
      const answer = Promise.withResolvers<string>();
      answers.push(answer);
      return answer.promise;
    });
    const key = "temperature nvme 0000:01:00.0/temp1";
    expect(sampler.read(0).missing).toEqual([]);
    answers[0]?.resolve("38000\n");
    await waitFor(
      "the disk's temperature",
      () =>
        sampler.read(1_000).sensors.find(({ key: name }) => name.startsWith("nvme"))?.value === 38,
    );
    const late = sampler.read(61_000);
    expect(late.missing).toEqual([{ key, reason: "no answer for 60 s" }]);
    expect(late.sensors).toHaveLength(3);
    expect(answers).toHaveLength(2);
    answers[1]?.reject(Object.assign(new Error("no"), { code: "EIO" }));
    await waitFor("its refusal", () => sampler.read(62_000).missing[0]?.reason === "EIO");
  });
});

describe("counters", () => {
  test("of a host that is well are all there, and zero but for the carrier", () => {
    using host = fixtureHost(healthyHost);
    const reading = new Sampler(host.tree).read(5);
    expect(v.safeParse(readingSchema, reading).issues).toBeUndefined();
    const sources = [...new Set(reading.counters.map(({ source }) => source))].sort();
    expect(sources).toEqual([
      "carrier",
      "memory-corrected",
      "memory-uncorrected",
      "network-errors",
      "pcie-correctable",
      "pcie-fatal",
      "pcie-nonfatal",
      "throttle",
    ]);
    const risen = reading.counters.filter(({ value }) => value > 0);
    expect(risen.map(({ source, value }) => [source, value])).toEqual([
      ["carrier", 1],
      ["carrier", 1],
    ]);
  });

  test("say whose they are", () => {
    using host = fixtureHost({
      memoryControllers: [
        {
          modules: [
            { corrected: 3, uncorrected: 0 },
            { corrected: 0, uncorrected: 1 },
          ],
        },
      ],
      network: [{ name: "eth0", mac: "52:54:00:00:00:01", errors: { received: 4, sent: 3 } }],
      pci: [
        {
          address: "0000:00:1c.0",
          class: "060400",
          vendor: "8086",
          device: "1",
          errors: { correctable: 9, fatal: 2 },
        },
      ],
      files: {
        "proc/interrupts": "      CPU0 CPU1\n MCE:   1   2   Machine check exceptions\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "7\n",
      },
    });
    const risen = readCounters(host.tree).filter(({ answer }) => (answer.value ?? 0) > 0);
    expect(risen.map(({ source, component, answer }) => [source, component, answer.value])).toEqual(
      [
        ["machine-check", "interrupt MCE", 3],
        ["memory-corrected", "mc0/dimm0", 3],
        ["memory-uncorrected", "mc0/dimm1", 1],
        ["throttle", "cpu1", 7],
        ["carrier", "eth0", 1],
        ["network-errors", "eth0", 7],
        ["pcie-correctable", "0000:00:1c.0", 9],
        ["pcie-fatal", "0000:00:1c.0", 2],
      ],
    );
  });

  test("a device that has gone takes its counters with it, and that is told", () => {
    using host = fixtureHost(healthyHost);
    const sampler = new Sampler(host.tree);
    sampler.read(0);
    host.remove("sys/class/net/eth1");
    expect(sampler.read(1).missing.filter(({ reason }) => reason === "gone")).toEqual([
      { key: "carrier eth1", reason: "gone" },
      { key: "network-errors eth1", reason: "gone" },
    ]);
  });

  test("of AER without a total are summed up", () => {
    expect(parseErrorTotal("RxErr 1\nBadTLP 2\n")).toEqual({ value: 3 });
    expect(parseErrorTotal("RxErr 1\nTOTAL_ERR_COR 9\n")).toEqual({ value: 9 });
    expect(parseErrorTotal("")).toEqual({ value: 0 });
  });

  test("of interrupts are those that are asked for", () => {
    const text = "  0:  5  6  IO-APIC\nMCE: 1 2 Machine\nMCP: 7 8 polls\nTHR:\nERR: 3\n";
    expect(parseInterrupts(text, ["MCE", "THR"])).toEqual([{ name: "MCE", count: 3 }]);
  });

  const line = (text: string) => ({ sequence: 1, microseconds: 1, level: 3, text });

  test("lines that name a fault are counted by what they name", () => {
    using host = fixtureHost();
    const sampler = new Sampler(host.tree);
    sampler.take(line("critical medium error, dev sda, sector 1"));
    sampler.take(line("critical medium error, dev sda, sector 2"));
    sampler.take(line("mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5"));
    sampler.take(line("all is well"));
    const found = sampler.read(0).counters.filter(({ value }) => value > 0);
    expect(found).toEqual([
      { source: "kernel-log", component: "medium-error sda", value: 2 },
      { source: "machine-check", component: "log CPU 2", value: 1 },
    ]);
  });

  test("a kernel that names a new device in every line fills no memory", () => {
    using host = fixtureHost();
    const sampler = new Sampler(host.tree);
    for (let at = 0; at < MOST_FAULTS + 10; at += 1) {
      sampler.take(line(`critical medium error, dev sd${at}, sector 1`));
    }
    const found = sampler.read(0).counters.filter(({ source }) => source === "kernel-log");
    expect(found).toHaveLength(MOST_FAULTS + 1);
    expect(found.at(-1)).toEqual({ source: "kernel-log", component: "others", value: 10 });
  });
});

describe("power and clocks", () => {
  test("watts are what energy rose by, and a counter that begins anew is no reading", () => {
    using host = fixtureHost();
    const file = "sys/class/powercap/intel-rapl:0/energy_uj";
    host.file("sys/class/powercap/intel-rapl:0/name", "package-0\n");
    const sampler = new Sampler(host.tree);
    const watts = (at: number, energy: number) => {
      host.file(file, `${energy}\n`);
      const { sensors, missing } = sampler.read(at);
      expect(missing).toEqual([]);
      return sensors.map(({ key, value }) => [key, value]);
    };
    expect(watts(0, 5_000_000)).toEqual([]);
    expect(watts(2_000, 305_000_000)).toEqual([["intel-rapl:0/package-0", 150]]);
    expect(watts(4_000, 1_000)).toEqual([]);
    expect(watts(5_000, 100_001_000)).toEqual([["intel-rapl:0/package-0", 100]]);
  });

  test("clocks are told for a processor: their mean, and the lowest", () => {
    using host = fixtureHost();
    host.file("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "3000000\n");
    host.file("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "800000\n");
    expect(new Sampler(host.tree).read(0).sensors.map(({ key, value }) => [key, value])).toEqual([
      ["package0/mean", 1_900],
      ["package0/lowest", 800],
    ]);
  });
});

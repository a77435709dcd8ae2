import { describe, expect, test } from "bun:test";
import { nvlinkLimits, parseNvlinks } from "../../../src/hardware/nvidia-links.ts";
import { smiOutput } from "../../support/hardware/nvidia-tools.ts";

const card = "GPU-5a1b2c3d";
const heading = (uuid: string) => `GPU 0: NVIDIA H100 80GB HBM3 (UUID: ${uuid})`;

describe("the links between cards that nvidia-smi prints", () => {
  test("are counted by card, with their errors", () => {
    const { linkStates, linkErrors } = smiOutput;
    expect([...parseNvlinks(linkStates, linkErrors)]).toEqual([
      [card, { links: 3, active: 2, inactive: [2], replays: 3, recoveries: 0, checksums: 7 }],
    ]);
  });

  test("of a newer version are the same", () => {
    const states = `${heading(card)}\r\n\t Link 17: 26.562 GB/s\r\n`;
    const errors = `${heading(card)}
\t Link 17: CRC FLIT Errors: 5
\t Link 17: Effective Errors: N/A
\t Link 17: Replay Errors: N/A
`;
    expect(parseNvlinks(states, errors).get(card)).toEqual({
      ...{ links: 1, active: 1, inactive: [] },
      ...{ replays: null, recoveries: null, checksums: 5 },
    });
  });

  test.each([
    "",
    "NVML: Unable to retrieve NvLink information as all links are inActive\n",
    "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error\n",
    " Link 0: 25 GB/s\n",
    `${heading("GPU-x")}\n Link 0: 25 GB/s\n`,
    `${heading(card)}\n Link 0: fast\n Link x: 25 GB/s\n Link 0: 25 GB/s and more\n`,
    `${heading(card)}\n${" ".repeat(nvlinkLimits.line)}Link 0: 25 GB/s\n`,
  ])("are none where it prints something else: %#", (text) => {
    expect(parseNvlinks(text, text).size).toBe(0);
  });

  test("below a heading that nobody understands are nobody's, and not the card's before it", () => {
    const states = `${heading(card)}\n Link 0: 25 GB/s\nGPU 1: lost\n Link 1: <inactive>\n`;
    expect(parseNvlinks(states, "").get(card)).toMatchObject({ links: 1, inactive: [] });
  });

  test("of more cards and links than the limit the rest is left out", () => {
    const uuid = (index: number) => `GPU-${index.toString(16).padStart(8, "0")}`;
    const links = Array.from({ length: 99 }, (_, link) => ` Link ${link}: 25 GB/s`).join("\n");
    const cards = Array.from({ length: nvlinkLimits.cards + 3 }, (_, index) => uuid(index));
    const text = cards.map((one) => `${heading(one)}\n${links}`).join("\n");
    const found = parseNvlinks(text, "");
    expect(found.size).toBe(nvlinkLimits.cards);
    expect(found.get(uuid(0))?.links).toBe(nvlinkLimits.links);
  });
});

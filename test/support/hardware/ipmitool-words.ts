/** What `ipmitool -v sdr` says of a sensor that is on or off: its states, and events it sends. */
export function discreteSensor(name: string, entity: string, states: readonly string[]): string {
  const list = (words: readonly string[]) =>
    words.map((word) => `                         [${word}]\n`).join("");
  const asserted = states.length === 0 ? "" : ` States Asserted       : Power Supply\n`;
  return `Sensor ID              : ${name} (0xc8)
 Entity ID             : ${entity} (Power Supply)
 Sensor Type (Discrete): Power Supply (0x08)
 Sensor Reading        : 0h
 Event Message Control : Per-threshold
${asserted}${list(states)} Assertion Events      : Power Supply
${list(["Presence detected", "Failure detected"])} OEM                   : 0

`;
}

/** … and of one that measures. */
export function thresholdSensor(name: string, entity: string, status: string): string {
  return `Sensor ID              : ${name} (0x1)
 Entity ID             : ${entity} (Power Supply)
 Sensor Type (Threshold)  : Power Supply (0x08)
 Sensor Reading        : 0xC0 unspecified
 Status                : ${status}
 Positive Hysteresis   : Unspecified
 Event Message Control : Per-threshold
 Readable Thresholds   : unr ucr unc

`;
}

/** The names of the cases of the story about VLANs, for both sides of the serial line. */
export const vlanCases = [
  "a network in a VLAN is made, and a second pass does nothing",
  "bridge and cards are in it, and in no other",
  "a card reaches the gateway and another card of its VLAN",
  "a card of another VLAN reaches neither, and hears nothing",
  "the gateway is moved into another VLAN, and who is there reaches it",
  "all of it goes",
] as const;

/** What iperf3 3.12 prints with `--json`: a value, so that a test can spoil it. */
export function iperf3Json(given: {
  readonly direction: "up" | "down";
  readonly bytes?: number;
  readonly seconds?: number;
}) {
  const { direction, bytes = 1_098_514_432, seconds = 10.000822 } = given;
  const bits_per_second = (bytes * 8) / seconds;
  const sum = { start: 0, end: seconds, seconds, bytes, bits_per_second, sender: false };
  return {
    start: {
      connected: [{ socket: 5, local_host: "10.77.0.2", remote_host: "10.77.0.1" }],
      version: "iperf 3.12",
      system_info: "Linux lab 6.1.0",
      test_start: { protocol: "TCP", num_streams: 1, reverse: direction === "down" ? 1 : 0 },
    },
    intervals: [],
    end: {
      streams: [],
      sum_sent: { ...sum, bytes: bytes + 1_179_648, retransmits: 7 },
      sum_received: sum,
      cpu_utilization_percent: { host_total: 38.4 },
    },
  };
}

/** It ends with 0 then, all the same. */
export const iperf3Error = (error: string) => ({
  start: { connected: [], version: "iperf 3.12", system_info: "Linux lab 6.1.0" },
  intervals: [],
  end: {},
  error,
});

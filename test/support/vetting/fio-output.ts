/** What fio 3.33 prints with `--output-format=json`, as fio(1) and its HOWTO describe it. */

export interface FioJob {
  readonly name: string;
  readonly bytes: number;
  /** Milliseconds. */
  readonly runtime?: number;
  readonly error?: number;
  readonly total_err?: number;
  readonly first_error?: number;
}

const nothing = { io_bytes: 0, runtime: 0, total_ios: 0, lat_ns: { min: 0, max: 0, N: 0 } };

export function fioWay(bytes: number, runtime: number) {
  return {
    io_bytes: bytes,
    runtime,
    total_ios: 8,
    lat_ns: {
      ...{ min: 318_455, max: 2_349_133, mean: 1_191_737.5, stddev: 881_865.8, N: 8 },
      percentile: {
        "50.000000": 428_032,
        "90.000000": 1_342_912,
        "99.000000": 2_042_912,
        "99.900000": 2_342_912,
      },
    },
  };
}

/** All of its JSON as a value, so that a test can spoil it. */
export function fioJson(jobs: readonly FioJob[], way: "read" | "write" = "read") {
  const other = way === "read" ? "write" : "read";
  return {
    "fio version": "fio-3.33",
    timestamp: 1_796_041_197,
    "global options": { direct: "1", rw: way },
    jobs: jobs.map(({ name, bytes, runtime = 30, error = 0, ...errors }, groupid) => ({
      ...{ jobname: name, groupid, error, elapsed: 1, total_err: 0, first_error: 0 },
      [way]: bytes === 0 ? nothing : fioWay(bytes, runtime),
      [other]: nothing,
      trim: nothing,
      ...errors,
    })),
    disk_util: [],
  };
}

import { describeReadingRefusal, describeRefusal, refusalCode } from "../journal/file-refused.ts";
import { ExitCode } from "../units/exit-code.ts";

/** What an image is, and what it was to be. */
export interface Mismatch {
  /** The file in the image, or its key in vm-config.json; undefined for the image as a whole. */
  readonly file: string | undefined;
  readonly expected: string;
  readonly received: string;
  readonly mend: string;
}

/** An image that cannot be used, or cannot be stored: nothing of it is left. */
export class ImageRefused extends Error {
  override readonly name = "ImageRefused";
  readonly exitCode: ExitCode = ExitCode.refused;
  readonly mismatch: Mismatch;

  /** @param what such as "use the image" @param image its path */
  constructor(what: string, image: string, mismatch: Mismatch) {
    const { file, expected, received, mend } = mismatch;
    const place = file === undefined ? "" : `, ${file}`;
    super(`Cannot ${what} ${image}${place}: expected ${expected}, received ${received}. ${mend}`);
    this.mismatch = mismatch;
  }
}

/** What was tried with a file of an image. */
export interface Attempt {
  /** Such as "read the image". */
  readonly what: string;
  readonly image: string;
  /** As `Mismatch` has it. */
  readonly file: string | undefined;
  readonly isReading: boolean;
}

/** The kernel's refusal as one of an image; any other error as it is. */
export function fromKernel(error: unknown, { what, image, file, isReading }: Attempt): unknown {
  const code = refusalCode(error);
  if (error instanceof ImageRefused || code === undefined || !/^E[A-Z0-9]+$/.test(code)) {
    return error;
  }
  const { why, mend } = (isReading ? describeReadingRefusal : describeRefusal)(code);
  const [, expected = why, received = code] = /^expected (.*), received (.*)$/.exec(why) ?? [];
  return new ImageRefused(what, image, { file, expected, received, mend: `${mend}.` });
}

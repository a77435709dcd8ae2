/** Between milliseconds since 1970 and RFC 3339 in UTC: whoever renders gives it. */
export interface Calendar {
  timeOf(milliseconds: number): string;
  /** NaN for what is no time. */
  millisecondsOf(time: string): number;
}

/** Units are texts inside the program: import with { type: "text" }. */
declare module "*.service" {
  const text: string;
  export = text;
}

declare module "*.socket" {
  const text: string;
  export = text;
}

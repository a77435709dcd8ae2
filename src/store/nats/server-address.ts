/** Addresses of NATS servers, as people write them. Pure. */

/** On this host itself, where no TLS is needed. */
export function isLoopbackServer(server: string): boolean {
  return /^([a-z]+:\/\/)?(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?\/?$/.test(server);
}

/** "tls://HOST:PORT"; without TLS on loopback alone. A user is given by a file, not in it. */
export function isServerAddress(server: string): boolean {
  const [, scheme = "nats", place = ""] = /^(?:([a-z]+):\/\/)?(.+)$/.exec(server) ?? [];
  const isRight = scheme === "tls" || (scheme === "nats" && isLoopbackServer(server));
  const isPlace = /^[\w.:[\]-]+\/?$/.test(place) && URL.canParse(`http://${place}`);
  return isRight && isPlace;
}

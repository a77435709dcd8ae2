/** Sends a text by UDP, from a socket that is tied to no interface. */
export {};

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as {
  readonly to: string;
  readonly text: string;
  readonly port?: number;
};
const socket = await Bun.udpSocket({});
socket.setBroadcast(true);
socket.send(options.text, options.port ?? 9_999, options.to);
socket.close();

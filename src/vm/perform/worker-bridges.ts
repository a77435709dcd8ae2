import { BridgeLock } from "../../network/bridge-lock.ts";
import { observeNetwork } from "../../network/kernel-network.ts";
import { DEFAULT_NETWORK } from "../protocol-network.ts";
import type { WorkerConfiguration } from "../worker-configuration.ts";
import { networksOf } from "../worker-networks.ts";

/** The bridges of a worker's networks, which no other worker has as long as it lives. */
export interface WorkerBridges {
  /** @param isInUse machines may have cards there, which stay when the worker ends */
  release(options: { readonly isInUse: boolean }): void;
}

/** @throws FileRefused when one of them is another worker's: none is taken then */
export function takeBridges(configuration: WorkerConfiguration): WorkerBridges {
  using taken = new DisposableStack();
  const locks = networksOf(configuration).map(({ name, specification: { bridge } }) => {
    const key = name === DEFAULT_NETWORK ? "network_bridge" : `bridge of [network.${name}]`;
    const options = { folder: configuration.artifactsFolder, observe: observeNetwork };
    return taken.use(BridgeLock.take({ bridge, key }, options));
  });
  taken.move();
  return {
    release: (options) => {
      for (const lock of locks) lock.release(options);
    },
  };
}

import type { Dispatcher } from "../http/dispatch.ts";
import type { Route } from "../http/route.ts";
import { identityApi } from "../identity/api.ts";
import { translateRefusal } from "./translate.ts";

/**
 * A session that is opened is an event and no record: hosts open some a day each, and must get in
 * while the audit log cannot be written. One that is refused is recorded, because a revoked or a
 * foreign key has tried it; what a caller can repeat is counted as all refusals are.
 */
export function recordRefusedOpenings(
  routes: readonly Route[],
  dispatcher: () => Dispatcher | undefined,
): readonly Route[] {
  return routes.map((route) => {
    return route.name === identityApi.sessionOpen.name ? recorded(route, dispatcher) : route;
  });
}

function recorded(route: Route, dispatcher: () => Dispatcher | undefined): Route {
  // As the dispatcher knows it when it refuses: what it is about is the host that is named.
  const refused: Route = { ...route, mutates: true, path: "host :host" };
  return {
    ...route,
    run: async (call, input) => {
      try {
        return await route.run(call, input);
      } catch (failure) {
        const refusal = translateRefusal(failure);
        if (refusal !== undefined) await dispatcher()?.refuse(refused, call, { input, refusal });
        throw failure;
      }
    },
  };
}

/** Who calls a networked role, and what such a one may do. */

/** What an operator may do as a whole; each role includes the ones before it. */
export const roles = ["view", "operate", "admin"] as const;
export type Role = (typeof roles)[number];

/**
 * Permissions that no role includes, not even admin: each is given by name, because what it
 * allows cannot be undone, or gives a way into a host.
 */
export const specialPermissions = [
  "wipe",
  "hold",
  "exec",
  "console",
  "rollout",
  "release",
] as const;
export type SpecialPermission = (typeof specialPermissions)[number];

/**
 * What a route asks for. `anyone` needs no credentials at all; `host` is any enrolled host, about
 * itself alone; `run` is a host that is being vetted, about its own run alone.
 */
export type Permission = "anyone" | "host" | "run" | Role | SpecialPermission;

/** Who calls, after the credentials were checked. */
export type Principal =
  | { readonly kind: "anonymous" }
  /** An enrolled host, by the name that its token was made for; `session` is that of its key. */
  | { readonly kind: "host"; readonly name: string; readonly session: string }
  /** A host that is being vetted; `session` null: by a token that is good for one claim alone. */
  | { readonly kind: "run"; readonly run: number; readonly session: string | null }
  | {
      readonly kind: "operator";
      readonly name: string;
      readonly role: Role;
      readonly special: readonly SpecialPermission[];
    }
  /** A process of this host that the control socket let in: root, or whoever was allowed. */
  | { readonly kind: "local"; readonly user: number; readonly process: number };

/** @returns whether this principal may call a route that asks for this permission */
export function mayCall(principal: Principal, permission: Permission): boolean {
  if (permission === "anyone") return true;
  switch (principal.kind) {
    case "anonymous":
      return false;
    case "host":
      return permission === "host";
    case "run":
      return permission === "run";
    case "local":
      // Who is root here could read the key and the database as well.
      return permission !== "host" && permission !== "run";
    case "operator":
      if (permission === "host" || permission === "run") return false;
      if (isRole(permission)) return roles.indexOf(principal.role) >= roles.indexOf(permission);
      return principal.special.includes(permission);
  }
}

/** "host web-1", "run 12", "operator alice", "local uid 0": for logs and the audit log. */
export function describePrincipal(principal: Principal): string {
  switch (principal.kind) {
    case "anonymous":
      return "anonymous";
    case "host":
      return `host ${principal.name}`;
    case "run":
      return `run ${principal.run}`;
    case "operator":
      return `operator ${principal.name}`;
    case "local":
      return `local uid ${principal.user}`;
  }
}

function isRole(permission: Permission): permission is Role {
  return (roles as readonly string[]).includes(permission);
}

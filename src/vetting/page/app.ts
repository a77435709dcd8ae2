import { currentSession, logOut, type Session } from "./ask.ts";
import { replace } from "./dom.ts";
import { fleetView } from "./fleet.ts";
import { loginView } from "./login.ts";
import { runView } from "./run.ts";
import { Shell, type View } from "./shell.ts";

/** Which view stands there, by what is behind the # of the address. */

const place = (id: string) => document.getElementById(id) as HTMLElement;
const main = place("view");
const who = place("who");
const logout = place("logout") as HTMLButtonElement;

let session: Session | undefined;
let current: View | undefined;

const places = { told: place("told"), link: place("link"), news: place("news") };
const shell = new Shell(places, askAgain);

/** What was asked was refused, because the session is over: by time, or by an orchestrator anew. */
function askAgain(): void {
  if (session === undefined) return;
  session = undefined;
  show();
  shell.tell("The session has ended. Log in again: then this view comes back.");
}

function show(): void {
  const run = /^#\/runs\/(\d{1,15})$/.exec(location.hash)?.[1];
  current?.stop?.();
  who.textContent = session?.who ?? "";
  logout.hidden = session === undefined;
  current = session === undefined ? loginAs() : viewOf(run);
  document.title = `${current.title} · hostler vetting`;
  replace(main, current.place);
  const first = session === undefined ? main.querySelector("input") : main;
  first?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** A place in the view that stands there: the address stays that of the view. */
function goWithin(event: MouseEvent): void {
  const link = (event.target as Element).closest?.('a[href^="#"]:not([href^="#/"])');
  if (link === null || link === undefined) return;
  event.preventDefault();
  const target = document.getElementById((link.getAttribute("href") ?? "").slice(1));
  const fold = target?.querySelector<HTMLDetailsElement>(":scope > details");
  if (fold) fold.open = true;
  target?.scrollIntoView();
  (fold?.querySelector("summary") ?? target)?.focus({ preventScroll: true });
}

const viewOf = (run: string | undefined) =>
  run === undefined ? fleetView(shell) : runView(shell, Number(run));

function loginAs(): View {
  const form = loginView((opened) => {
    session = opened;
    shell.hush();
    show();
  });
  return { title: "Log in", place: form };
}

logout.addEventListener("click", () => {
  void shell.attempt(logOut).then(() => {
    session = undefined;
    show();
  });
});
addEventListener("hashchange", () => {
  // What was refused was of the view before.
  shell.hush();
  show();
});
addEventListener("click", goWithin);
session = await currentSession().catch((error: Error) => {
  shell.tell(error.message);
  return undefined;
});
show();

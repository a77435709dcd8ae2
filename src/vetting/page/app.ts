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

const shell = new Shell({ told: place("told"), link: place("link") }, () => void askAgain());

/** Something was refused for good: by the end of the session, or by an orchestrator in trouble. */
async function askAgain(): Promise<void> {
  const found = await currentSession().catch(() => session);
  if (found !== undefined) {
    shell.tell("The orchestrator tells nothing more just now: load the page again.");
    return;
  }
  session = undefined;
  show();
}

function show(): void {
  const run = /^#\/runs\/(\d{1,15})$/.exec(location.hash)?.[1];
  // What is no path of a view is a place in the one that stands there.
  if (current !== undefined && session !== undefined && !/^#?(\/|$)/.test(location.hash)) return;
  current?.stop?.();
  who.textContent = session?.who ?? "";
  logout.hidden = session === undefined;
  current = session === undefined ? loginAs() : viewOf(run);
  document.title = `${current.title} · hostler vetting`;
  replace(main, current.place);
  if (session !== undefined) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

const viewOf = (run: string | undefined) =>
  run === undefined ? fleetView(shell) : runView(shell, Number(run));

function loginAs(): View {
  const form = loginView((opened) => {
    session = opened;
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
addEventListener("hashchange", show);
session = await currentSession().catch(() => undefined);
show();

import type { LiveEvent } from "../protocol-operator.ts";
import { currentSession, Refused } from "./ask.ts";
import { button, element, replace } from "./dom.ts";
import { clockText, shownText } from "./format.ts";
import { follow, type LinkState } from "./live.ts";

/** What every view stands in: messages, dialogs, and the link to the orchestrator. */

export interface View {
  readonly title: string;
  readonly place: HTMLElement;
  readonly stop?: () => void;
}

export interface DialogOptions {
  readonly title: string;
  readonly content: readonly (HTMLElement | string)[];
  readonly action: string;
  readonly isDangerous?: boolean;
  act(): Promise<unknown>;
}

export interface Places {
  readonly told: HTMLElement;
  readonly link: HTMLElement;
  /** For who listens and does not look. */
  readonly news: HTMLElement;
}

export class Shell {
  readonly #places: Places;
  readonly #onLoggedOut: () => void;

  constructor(places: Places, onLoggedOut: () => void) {
    this.#places = places;
    this.#onLoggedOut = onLoggedOut;
  }

  /** Says what was refused; undefined where it was. */
  async attempt<Answer>(act: () => Promise<Answer>): Promise<Answer | undefined> {
    try {
      return await act();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.#onLoggedOut();
      else this.tell((error as Error).message);
      return undefined;
    }
  }

  tell(message: string): void {
    const close = button("Close", () => this.hush(), { class: "quiet" });
    const words = element("div", { class: "message" }, element("p", {}, message), close);
    replace(this.#places.told, words);
  }

  hush(): void {
    replace(this.#places.told);
  }

  /** Politely: it waits until a reader of screens has said what it says. */
  announce(news: string): void {
    this.#places.news.textContent = shownText(news);
  }

  /** @param again what was missed is asked for */
  follow(path: string, onEvent: (event: LiveEvent) => void, again = () => {}): () => void {
    const { link } = this.#places;
    let before: LinkState | undefined;
    const stop = follow(path, {
      ...{ event: onEvent, again },
      state: (state) => {
        if (state === before) return;
        before = state;
        link.className = state;
        const since = clockText(new Date());
        link.textContent = state === "live" ? "live" : `orchestrator away since ${since}`;
      },
      mayGoOn: async () => {
        const found = await currentSession().catch(() => null);
        if (found === undefined) this.#onLoggedOut();
        return found !== undefined;
      },
    });
    return () => {
      stop();
      link.textContent = "";
    };
  }

  /** Escape and Back close it; what is refused is told in it, and it stays open. */
  dialog({ title, content, action, isDangerous = false, act }: DialogOptions): void {
    const wrong = element("p", { class: "wrong", role: "alert" });
    const submit = element(
      "button",
      { type: "submit", class: isDangerous ? "danger" : "main" },
      action,
    );
    const carryOut = async () => {
      submit.disabled = true;
      try {
        await act();
        dialog.close();
      } catch (error) {
        wrong.textContent = shownText((error as Error).message);
        submit.disabled = false;
      }
    };
    const form = element(
      "form",
      {
        on: {
          submit: (event) => {
            event.preventDefault();
            void carryOut();
          },
        },
      },
      element("h2", { id: "dialog-title" }, title),
      ...content,
      wrong,
      element(
        "div",
        { class: "actions" },
        button("Back", () => dialog.close()),
        submit,
      ),
    );
    const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, form);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }
}

import { type CertificatesView, identityApi } from "../../identity/api.ts";
import { type ClientFlags, show } from "./client-flags.ts";
import { listText } from "./words.ts";

export async function runList(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(identityApi.certificatesList, {}),
    renderCertificates,
  );
}

export async function runRotate(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(identityApi.certificatesRotate, {}),
    renderCertificates,
  );
}

export async function runFinish(flags: ClientFlags & { readonly force: boolean }): Promise<number> {
  return await show(
    flags,
    (client) => client.call(identityApi.certificatesFinish, { force: flags.force }),
    renderCertificates,
  );
}

function renderCertificates({
  authority,
  shown,
  announced,
  unconfirmed,
}: CertificatesView): string {
  const next =
    announced === null ? "" : `announced    ${announced}\nlacking it   ${listText(unconfirmed)}\n`;
  return `authority    ${authority}\ncertificate  ${shown}\n${next}`;
}

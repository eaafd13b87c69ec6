// A program as a customer would write it: it uses only the types that are generated from the API's document. It
// creates a tunnel and a share, changes the share, and deletes both. It reads its token from standard input; its
// argument is the server's URL. It exits with 0 if every answer matches the document.

import createClient, { type Client } from "openapi-fetch";
import { strict as assert } from "node:assert";
import { setTimeout as pause } from "node:timers/promises";
import type { components, paths } from "./generated/api.js";

type Share = components["schemas"]["IpsecShare"];
type Tunnel = components["schemas"]["IpsecTunnel"];
type Status = Share["status"];

/** The longest wait for a status. It takes the gateway milliseconds, but the machine may be busy. */
const PATIENCE_MS = 40_000;

async function main(url: string, token: string): Promise<void> {
  const api = createClient<paths, "application/json">({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
  const frontdoorId = (await only(api.GET("/frontdoor/v2"))).content[0]?.id;
  assert(frontdoorId, "there is a Frontdoor from the first start");
  const active = await only(
    api.GET("/frontdoor/v2/{frontdoorId}/environments", {
      params: { path: { frontdoorId }, query: { status: ["ACTIVE"], sort: ["createdAt,desc"] } },
    }),
  );
  const environment = active.content[0];
  assert(environment, "an agent is connected");
  assert.equal(environment.agents[0]?.status, "CONNECTED");

  const tunnel = await only(
    api.POST("/frontdoor/v2/{frontdoorId}/ipsec-tunnels", {
      params: { path: { frontdoorId } },
      body: {
        name: "generated-client",
        locationId: "local",
        peerPublicIp: "203.0.113.77",
        peerCidr: "172.31.0.0/16",
        tags: { made: "by-a-generated-client" },
      },
    }),
  );
  assert.equal(tunnel.status, "NEW");
  const readTunnel = () => getTunnel(api, frontdoorId, tunnel.id);
  await until(readTunnel, (it) => it.status === "DEPLOYED");

  const body = {
    name: "app-db",
    ipsecTunnelId: tunnel.id,
    envZId: environment.zId,
    target: "127.0.0.1:9",
    ingressPort: 8443,
  };
  const made = await api.POST("/frontdoor/v2/{frontdoorId}/ipsec-shares", {
    params: { path: { frontdoorId }, header: { "Idempotency-Key": "the-first-share" } },
    body,
  });
  const share = await only(Promise.resolve(made));
  assert.equal(made.response.status, 202);
  assert.equal(made.response.headers.get("location"), `/frontdoor/v2/${frontdoorId}/ipsec-shares/${share.id}`);
  const path = { frontdoorId, id: share.id };
  const read = async (): Promise<Share> =>
    only(api.GET("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", { params: { path } }));
  const deployed = await until(read, (it) => it.status === "DEPLOYED");
  assert.equal(deployed.ingressPort, 8443);

  const taken = await api.POST("/frontdoor/v2/{frontdoorId}/ipsec-shares", {
    params: { path: { frontdoorId } },
    body: { ...body, name: "another" },
  });
  assert.equal(taken.response.status, 409);
  assert.equal(taken.error?.error, "conflict");

  const patched = await only(
    api.PATCH("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", { params: { path }, body: { ingressPort: 8444 } }),
  );
  assert.deepEqual([patched.status, patched.ingressPort, patched.target], ["NEW", 8444, "127.0.0.1:9"]);
  const again = await until(read, (it) => it.status === "DEPLOYED");

  // A share that was read is a valid body of a PUT.
  await only(
    api.PUT("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", {
      params: { path },
      body: { ...again, name: "renamed" },
    }),
  );
  const renamed = await until(read, (it) => it.status === "DEPLOYED");
  assert.deepEqual([renamed.name, renamed.ingressPort], ["renamed", 8444]);

  const found = await only(
    api.GET("/frontdoor/v2/{frontdoorId}/ipsec-shares", {
      params: { path: { frontdoorId }, query: { ingressPort: [8444], status: ["DEPLOYED", "NEW"], size: 1 } },
    }),
  );
  assert.deepEqual([found.totalElements, found.content[0]?.id], [1, share.id]);
  const check = await only(api.POST("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/check", { params: { path } }));
  assert.equal(check.hops.find((hop) => hop.hop === "listener")?.state, "OK");
  const metrics = await only(
    api.GET("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/metrics", {
      params: { path, query: { duration: "15m" } },
    }),
  );
  assert.equal(metrics.period, 900);

  const deleting = await only(
    api.DELETE("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", { params: { path } }),
  );
  assert.equal<Status>(deleting.status, "DELETING");
  const gone = await until(read, (it) => it.status === "DELETED");
  assert(gone.deletedAt);
  await only(
    api.DELETE("/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}", {
      params: { path: { frontdoorId, id: tunnel.id } },
    }),
  );
  await until(readTunnel, (it) => it.status === "DELETED");
}

function getTunnel(api: Client<paths, "application/json">, frontdoorId: string, id: string): Promise<Tunnel> {
  const params = { path: { frontdoorId, id } };
  return only(api.GET("/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}", { params }));
}

/** Returns the body of a successful answer and throws for any other. */
async function only<T>(answer: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<NonNullable<T>> {
  const { data, error, response } = await answer;
  if (data === undefined || data === null) {
    throw new Error(`${response.url}: ${response.status} ${JSON.stringify(error)}`);
  }
  return data;
}

async function until<T>(read: () => Promise<T>, wanted: (it: T) => boolean): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const it = await read();
    if (wanted(it)) return it;
    if (Date.now() > end) throw new Error(`timeout, last state: ${JSON.stringify(it)}`);
    await pause(50);
  }
}

const [url] = process.argv.slice(2);
assert(url, "usage: client.js URL <TOKEN");
let token = "";
for await (const piece of process.stdin.setEncoding("utf8")) token += piece;
await main(url, token.trim());
console.log("a generated client created, changed and deleted a tunnel and a share");

// Orders to the test that runs around the browser: it starts agents, devices and services. tests/e2e/console/bench.rs lists them.
import { connect } from 'node:net';

export async function order(order: Record<string, unknown>): Promise<Record<string, string>> {
  const path = process.env.LAB_SOCKET;
  if (!path) throw new Error('LAB_SOCKET is not set: this test needs agents and sites, and is run by `cargo nextest run e2e::console`');
  const answer = await new Promise<string>((done, failed) => {
    let text = '';
    const socket = connect(path, () => socket.write(`${JSON.stringify(order)}\n`));
    socket.on('data', (piece) => (text += piece.toString()));
    socket.on('end', () => done(text));
    socket.on('error', failed);
  });
  const said = JSON.parse(answer) as Record<string, string>;
  if (said.error) throw new Error(said.error);
  return said;
}

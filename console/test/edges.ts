// Real HTTP servers on loopback that behave as an edge does, or worse.

import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import type { Edge } from "../src/transport";

export interface TestEdge extends Edge {
  requests: string[];
  close: () => void;
}

export async function edge(id: string, answer: RequestListener): Promise<TestEdge> {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(request.url ?? "");
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { id, origin: `http://127.0.0.1:${port}`, requests, close };
}

export const serves =
  (text: string): RequestListener =>
  (_request, response) =>
    void response.end(text);

/** Takes the request and never answers: a frozen process. */
export const frozen: RequestListener = () => undefined;

export const fails =
  (status: number): RequestListener =>
  (_request, response) =>
    void response.writeHead(status).end("{}");

/** Promises more bytes than it sends, then closes. */
export const cut: RequestListener = (_request, response) => {
  response.writeHead(200, { "Content-Length": 10 });
  response.write("half", () => response.destroy());
};

/** Sends a few bytes, then nothing. */
export const stalls: RequestListener = (_request, response) => {
  response.writeHead(200, { "Content-Length": 10 });
  response.write("half");
};

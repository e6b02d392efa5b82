// http.js server PORT | client PORT COUNT: COUNT requests of several sizes over at most four kept-alive connections.
'use strict';
const http = require('http');
const crypto = require('crypto');

// Where the server is.
const host = process.env.SERVER_HOST;
const [role, port, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const digest = (data) => crypto.createHash('sha256').update(data).digest('hex');

function serve() {
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      response.setHeader('x-digest', digest(body));
      response.end(body);
    });
  });
  server.keepAliveTimeout = 60000;
  server.listen(port, host);
  process.on('SIGTERM', () => process.exit(0));
}

async function ask(agent, number) {
  const body = crypto.randomBytes([0, 1, 100, 5000, 70000, 400000][number % 6]);
  return new Promise((resolve, reject) => {
    const options = { host, port, agent, method: 'POST', path: '/', headers: { 'content-length': body.length } };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', reject);
      response.on('end', () => {
        const found = Buffer.concat(parts);
        if (!found.equals(body) || response.headers['x-digest'] !== digest(body)) {
          reject(new Error(`request ${number}: ${body.length} bytes came back as ${found.length} others`));
        } else {
          resolve(request.socket);
        }
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function main() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const sockets = await Promise.all(Array.from({ length: count }, (_, number) => ask(agent, number)));
  const used = new Set(sockets).size;
  if (used > 4) throw new Error(`${count} requests used ${used} connections`);
  console.log(`${count} answers on ${used} connections`);
  agent.destroy();
}

if (role === 'server') serve();
else main().catch((error) => { console.error(error); process.exit(1); });

// Runs jobs that do nothing through a queue on PostgreSQL, with the settings of the queue's own benchmark, and prints
// how long they took and what processor time they cost, the server's included.
//
//     node queue.mjs graphile-worker|pg-boss URL JOBS
import { readFileSync, readdirSync } from 'node:fs'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import pg from 'pg'
import { run } from 'graphile-worker'
import PgBoss from 'pg-boss'

process.env.NO_LOG_SUCCESS = '1'
const [queue, url, count] = process.argv.slice(2)
const jobs = Number(count)

// Seconds of processor time of a process; those of its ended children too if `all`.
function seconds (pid, all) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').pop().split(' ')
  return fields.slice(11, all ? 15 : 13).reduce((sum, ticks) => sum + Number(ticks), 0) / 100
}

// Of all processes of the server that this connection belongs to.
async function server (client) {
  const { rows } = await client.query('SELECT pg_backend_pid() AS pid')
  const parent = (pid) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').pop().split(' ')[1]
  const postmaster = parent(rows[0].pid)
  let sum = seconds(postmaster, true)
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (parent(pid) === postmaster) sum += seconds(pid, true)
    } catch (error) {
      if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error
    }
  }
  return sum
}

// perfTest/run.js and perfTest/graphile.config.js of graphile-worker: four processes of 24 jobs at a time, which fetch
// 500 at a time and complete in batches. Here each stays until told, so that its start is not measured.
const graphile = {
  processes: 4,
  async add (client) {
    const tasks = { nothing: async () => {} }
    const migrated = await run({ connectionString: url, taskList: tasks, noHandleSignals: true })
    await migrated.stop()
    await client.query(
      `SELECT 1 FROM graphile_worker.add_jobs(ARRAY(SELECT json_populate_recordset(NULL::graphile_worker.job_spec,
         (SELECT json_agg(json_build_object('identifier', 'nothing', 'payload', json_build_object('id', n)))
          FROM generate_series(1, $1::int) AS n))))`, [jobs])
  },
  left: 'SELECT count(*)::int AS left FROM graphile_worker._private_jobs',
  async work () {
    await run({
      preset: {
        worker: {
          connectionString: url,
          concurrentJobs: 24,
          maxPoolSize: 25,
          localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0
        }
      },
      taskList: { nothing: async () => {} },
      noHandleSignals: true
    })
  }
}

// test/speedTest of pg-boss: a pool of ten connections, fetched and completed 5,000 at a time.
const boss = {
  processes: 1,
  async add () {
    const boss = new PgBoss({ connectionString: url })
    await boss.start()
    await boss.createQueue('nothing')
    for (let from = 0; from < jobs; from += 5_000) {
      const batch = Array.from({ length: Math.min(5_000, jobs - from) }, (_, n) => ({ name: 'nothing', data: { id: from + n } }))
      await boss.insert(batch)
    }
    await boss.stop({ graceful: false })
  },
  left: "SELECT count(*)::int AS left FROM pgboss.job WHERE name = 'nothing' AND state < 'completed'",
  async work () {
    const boss = new PgBoss({ connectionString: url, min: 10, max: 10 })
    await boss.start()
    for (;;) {
      const fetched = await boss.fetch('nothing', { batchSize: 5_000 })
      if (fetched.length === 0) return
      await boss.complete('nothing', fetched.map((job) => job.id))
    }
  }
}

const known = { 'graphile-worker': graphile, 'pg-boss': boss }
const chosen = known[queue]
if (!chosen || !(jobs > 0)) throw new Error(`usage: queue.mjs ${Object.keys(known).join('|')} URL JOBS`)
if (process.send) {
  process.send('ready')
  await once(process, 'message')
  await chosen.work()
} else {
  const client = new pg.Client(url)
  await client.connect()
  await chosen.add(client)
  await client.query('VACUUM ANALYZE')
  const workers = Array.from({ length: chosen.processes }, () => fork(process.argv[1], process.argv.slice(2)))
  await Promise.all(workers.map((worker) => once(worker, 'message')))
  const own = () => workers.reduce((sum, worker) => sum + seconds(worker.pid, false), 0)
  const before = { server: await server(client), own: own(), at: performance.now() }
  for (const worker of workers) worker.send('work')
  for (;;) {
    const { rows } = await client.query(chosen.left)
    if (rows[0].left === 0) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const took = (performance.now() - before.at) / 1_000
  const cost = { server: (await server(client)) - before.server, own: own() - before.own }
  const each = ((cost.server + cost.own) / jobs) * 1e6
  console.log(
    `${queue}: ${jobs} jobs in ${took.toFixed(1)} s, ${(jobs / took).toFixed(0)}/s; processor: server ` +
    `${cost.server.toFixed(2)} s, own ${cost.own.toFixed(2)} s, ${each.toFixed(1)} us each`)
  for (const worker of workers) worker.kill('SIGKILL')
  await client.end()
}

// You will see boxes handed over at once because they were made ahead, each to one caller, and the pool filling up behind them.
import { Runtime } from 'sluicebox'

const runtime = new Runtime()
try {
  const pool = await runtime.pool({ size: 2, env: { GREETING: 'hello' } })
  console.log(`ready: ${pool.ready}`)

  const boxes = await Promise.all(['Ada', 'Grace', 'Mary'].map((NAME) => pool.acquire({ env: { NAME } })))
  for (const box of boxes) console.log((await box.run(['sh', '-c', 'echo "$GREETING, $NAME"'])).stdout)
  console.log(`different boxes: ${new Set(boxes.map(({ id }) => id)).size}`)

  // What nobody took goes with the pool; the others are their owners'.
  await pool.close()
  console.log(`left: ${runtime.stats().boxes.total}`)
  console.log(`still mine: ${(await boxes[0]?.run(['echo', 'yes']))?.stdout}`)
} finally {
  await runtime.close()
}

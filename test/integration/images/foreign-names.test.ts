// Names that an image gives: they are data, told by info, and never opened where the policy or the engine says no.
import { rmSync } from 'node:fs'
import { expect, test } from 'vitest'
import { makeFolder } from '../../support/folder.js'
import { openRuntime, rejection, settled } from '../../support/producer.js'
import { program, qemuImg } from '../../support/qemu.js'

test('I43: an external data file is told by name and refused, and never opened, not even to see what it is', async () => {
  const folder = makeFolder()
  const { images } = openRuntime()
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${folder('data')}`, folder('image'), '1M')
  // Opening a FIFO for reading would wait for a writer that never comes.
  rmSync(folder('data'))
  await program('mkfifo', [folder('data')])

  const info = await settled(images.info(folder('image')))
  expect(info).toMatchObject({ status: 'fulfilled', value: { specific: { 'data-file': folder('data') } } })
  // One after the other: each takes a lock that would refuse the other.
  for (const call of [
    () => images.check(folder('image')),
    () => images.rebase(folder('image'), { backing: null }),
  ] as (() => Promise<unknown>)[]) {
    expect(await rejection(call())).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringMatching(/data file/),
    })
  }
})

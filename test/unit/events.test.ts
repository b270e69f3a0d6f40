// TypedEvents: subscribing, removing, and what a throwing listener may not do.
import { AsyncLocalStorage } from 'node:async_hooks'
import { expect, test } from 'vitest'
import { InvalidArgumentError, TypedEvents } from '../../lib/index.js'

class Emitter extends TypedEvents<{ word: [text: string, count: number]; end: [] }> {
  readonly failures: unknown[]
  constructor() {
    const failures: unknown[] = []
    super('box', (error, event) => failures.push([error, event]))
    this.failures = failures
  }
  say(text: string, count = 1) {
    return this.emit('word', text, count)
  }
}

test('listeners hear every event in the order of subscription, with all arguments and the emitter as this', () => {
  const emitter = new Emitter()
  const heard: unknown[] = []
  emitter.on('word', function (this: unknown, ...args) {
    heard.push(['first', args, this === emitter])
  })
  emitter.on('word', (...args) => heard.push(['second', args, true]))
  expect(emitter.say('a', 2)).toBe(true)
  expect(heard).toEqual([
    ['first', ['a', 2], true],
    ['second', ['a', 2], true],
  ])
})

test('once hears one event, also when it emits again itself', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.once('word', (text) => {
    heard.push(text)
    emitter.say('inner')
  })
  emitter.say('outer')
  emitter.say('later')
  expect(heard).toEqual(['outer'])
  expect(emitter.listenerCount('word')).toBe(0)
})

test('off removes the latest subscription of a function, once, and ignores what was never there', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  const listener = (text: string) => heard.push(text)
  emitter.on('word', listener).once('word', listener).on('word', listener)
  expect(emitter.listenerCount('word')).toBe(3)
  emitter.off('word', listener)
  expect(emitter.listenerCount('word')).toBe(2)
  emitter.say('a')
  expect(heard).toEqual(['a', 'a'])
  emitter.removeListener('word', listener)
  emitter.off('word', listener).off('end', listener as unknown as () => void)
  expect(emitter.listenerCount('word')).toBe(0)
  expect(emitter.say('b')).toBe(false)
})

test('a listener may remove itself and add another while an event is being told', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.on('word', function first() {
    heard.push('first')
    emitter.off('word', first)
    emitter.on('end', () => {})
  })
  emitter.on('word', () => heard.push('second'))
  emitter.say('a')
  emitter.say('b')
  expect(heard).toEqual(['first', 'second', 'second'])
})

test('Q9: a throw reaches the failure handler with target and name, whatever was thrown, and the others still hear', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  for (const thrown of [new Error('e'), undefined, null, 'text'])
    emitter.on('word', () => {
      throw thrown
    })
  emitter.on('word', (text) => heard.push(text))
  emitter.say('a')
  emitter.say('b')
  expect(heard).toEqual(['a', 'b'])
  expect(emitter.failures.length).toBe(8)
  expect(emitter.failures[1]).toEqual([undefined, { target: 'box', name: 'word' }])
})

test.each([undefined, null, 0, 'text', {}, ['a']])(
  'H30: %s is refused as a listener, by name, before it is subscribed',
  (bad) => {
    const emitter = new Emitter()
    for (const method of ['on', 'once'] as const) {
      let thrown: unknown
      try {
        emitter[method]('word', bad as never)
      } catch (error) {
        thrown = error
      }
      expect(thrown).toBeInstanceOf(InvalidArgumentError)
      expect(thrown).toMatchObject({ code: 'INVALID_ARGUMENT', argument: 'fn', op: `box.${method}` })
    }
    expect(emitter.listenerCount('word')).toBe(0)
    expect(emitter.off('word', bad as never)).toBe(emitter)
  },
)

test('names that every object has are names of events like others', () => {
  const emitter = new Emitter()
  for (const name of ['__proto__', 'constructor', 'toString'] as unknown as 'word'[]) {
    expect(emitter.listenerCount(name)).toBe(0)
    emitter.on(name, () => {})
    expect(emitter.listenerCount(name)).toBe(1)
  }
})

test('Q10: what a listener causes to be emitted is told after the event at hand, to all in the same order', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.on('word', (text) => {
    heard.push(`first ${text}`)
    if (text === 'a') {
      expect(emitter.say('b')).toBe(true)
      expect(emitter.say('c')).toBe(true)
    }
  })
  emitter.on('word', (text) => heard.push(`second ${text}`))
  emitter.say('a')
  expect(heard).toEqual(['first a', 'second a', 'first b', 'second b', 'first c', 'second c'])
})

test('once hears one event when a listener before it emits another', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.on('word', (text) => text === 'a' && emitter.say('b'))
  emitter.once('word', (text) => heard.push(text))
  emitter.say('a')
  expect(heard).toEqual(['a'])
})

test('an event emitted by a listener reaches those who listened then and still do', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  const gone = (text: string) => heard.push(`gone ${text}`)
  emitter.on('word', (text) => {
    if (text !== 'a') return
    emitter.say('b')
    emitter.off('word', gone).on('word', (late) => heard.push(`late ${late}`))
  })
  emitter.on('word', gone)
  emitter.on('word', (text) => heard.push(`stays ${text}`))
  emitter.say('a')
  emitter.say('c')
  expect(heard).toEqual(['gone a', 'stays a', 'stays b', 'stays c', 'late c'])
})

test('Q26: an event emitted by a listener is heard in the async context that emitted it', () => {
  const emitter = new Emitter()
  const storage = new AsyncLocalStorage<string>()
  const heard: unknown[] = []
  emitter.on('word', (text) => {
    heard.push([text, storage.getStore()])
    if (text === 'a') storage.run('inner', () => emitter.say('b'))
  })
  storage.run('outer', () => emitter.say('a'))
  expect(heard).toEqual([
    ['a', 'outer'],
    ['b', 'inner'],
  ])
})

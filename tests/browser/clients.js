// Two clients that fit on a page: MQTT 5.0 and STOMP 1.2 over a browser's own WebSocket. Nothing but what the tests need.
'use strict'

const utf8 = new TextEncoder()
const text = bytes => new TextDecoder('utf-8', { fatal: true }).decode(bytes)
const bytesOf = body => typeof body === 'string' ? utf8.encode(body) : body

// Whoever waits for the next thing of a kind gets it; what nobody waits for is kept.
class Inbox {
  constructor () {
    this.kept = []
    this.waiting = []
    this.over = null
  }

  put (kind, value) {
    const i = this.waiting.findIndex(w => w.kind === kind)
    if (i < 0) this.kept.push({ kind, value })
    else this.waiting.splice(i, 1)[0].yes(value)
  }

  take (kind) {
    const i = this.kept.findIndex(k => k.kind === kind)
    if (i >= 0) return Promise.resolve(this.kept.splice(i, 1)[0].value)
    if (this.over) return Promise.reject(this.over)
    return new Promise((yes, no) => this.waiting.push({ kind, yes, no }))
  }

  end (why) {
    this.over = why
    for (const w of this.waiting) w.no(why)
    this.waiting = []
  }
}

// A WebSocket that is open, or an Error; on_bytes and on_text get what comes.
function open (url, protocols, onMessage, inbox) {
  return new Promise((yes, no) => {
    const socket = new WebSocket(url, protocols)
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => yes(socket)
    socket.onerror = () => no(new Error('the WebSocket was refused'))
    socket.onclose = e => {
      inbox.put('close', e)
      inbox.end(new Error('closed with ' + e.code))
    }
    socket.onmessage = e => onMessage(e.data)
  })
}

// ---- MQTT 5.0

const varint = n => {
  const out = []
  do {
    out.push(n & 127 | (n > 127 ? 128 : 0))
    n >>= 7
  } while (n)
  return out
}
const short = n => [n >> 8, n & 255]
const string = s => {
  const bytes = bytesOf(s)
  return [...short(bytes.length), ...bytes]
}

class Mqtt {
  static async connect (url, { user = 'guest', password = 'guest', id = '', protocols = ['mqtt'] } = {}) {
    const c = new Mqtt()
    c.inbox = new Inbox()
    c.left = new Uint8Array()
    c.ids = 0
    c.socket = await open(url, protocols, data => c.feed(new Uint8Array(data)), c.inbox)
    const login = user === null ? [] : [...string(user), ...string(password)]
    c.send(0x10, [...string('MQTT'), 5, 2 | (user === null ? 0 : 0xc0), 0, 60, 0, ...string(id), ...login])
    const answer = await c.inbox.take('connack')
    c.reason = answer[1]
    return c
  }

  send (first, head, body = new Uint8Array()) {
    const fixed = [first, ...varint(head.length + body.length), ...head]
    const packet = new Uint8Array(fixed.length + body.length)
    packet.set(fixed)
    packet.set(body, fixed.length)
    this.socket.send(packet)
  }

  // Frames of a WebSocket and packets of MQTT have nothing to do with each other.
  feed (bytes) {
    const all = new Uint8Array(this.left.length + bytes.length)
    all.set(this.left)
    all.set(bytes, this.left.length)
    let at = 0
    for (;;) {
      let length = 0
      let n = 1
      for (; n < 5; n++) {
        if (at + n >= all.length) break
        length |= (all[at + n] & 127) << 7 * (n - 1)
        if (!(all[at + n] & 128)) break
      }
      if (at + n >= all.length || all.length - at - n - 1 < length) break
      this.packet(all[at], all.subarray(at + n + 1, at + n + 1 + length))
      at += n + 1 + length
    }
    this.left = all.slice(at)
  }

  packet (first, body) {
    const kinds = { 2: 'connack', 4: 'puback', 9: 'suback', 14: 'disconnect' }
    if (first >> 4 === 3) this.message(first, body)
    else this.inbox.put(kinds[first >> 4], body)
  }

  message (first, body) {
    const qos = first >> 1 & 3
    let at = 2 + (body[0] << 8 | body[1])
    const topic = text(body.subarray(2, at))
    const id = body.slice(at, at + 2)
    if (qos) at += 2
    let length = 0
    let shift = 0
    do {
      length |= (body[at] & 127) << shift
      shift += 7
    } while (body[at++] & 128)
    const properties = body.slice(at, at + length)
    this.inbox.put('message', { topic, qos, retain: !!(first & 1), properties, payload: body.slice(at + length) })
    if (qos) this.send(0x40, [...id])
  }

  async subscribe (filter, qos = 1) {
    this.send(0x82, [...short(++this.ids), 0, ...string(filter), qos])
    const answer = await this.inbox.take('suback')
    return answer[answer.length - 1]
  }

  // With QoS 1 it is done when the broker has it.
  async publish (topic, payload, { qos = 1, retain = false, user = [] } = {}) {
    const properties = user.flatMap(([name, value]) => [0x26, ...string(name), ...string(value)])
    this.send(0x30 | qos << 1 | (retain ? 1 : 0), [...string(topic), ...(qos ? short(++this.ids & 0x7fff) : []), ...varint(properties.length),
      ...properties], bytesOf(payload))
    if (qos) await this.inbox.take('puback')
  }

  next () { return this.inbox.take('message') }

  close () { this.socket.close() }
}

// ---- STOMP 1.2

class Stomp {
  static async connect (url, { login = 'guest', passcode = 'guest', protocols = ['v12.stomp'], binary = false } = {}) {
    const c = new Stomp()
    c.inbox = new Inbox()
    c.left = new Uint8Array()
    c.binary = binary
    c.kinds = new Set()
    c.receipts = 0
    c.socket = await open(url, protocols, data => {
      c.kinds.add(typeof data)
      c.feed(bytesOf(typeof data === 'string' ? data : new Uint8Array(data)))
    }, c.inbox)
    c.send('CONNECT', { 'accept-version': '1.2', host: '/', ...(login === null ? {} : { login, passcode }) })
    c.answer = await Promise.race([c.inbox.take('CONNECTED'), c.inbox.take('ERROR')])
    return c
  }

  send (command, headers, body = '') {
    const escape = s => String(s).replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/:/g, '\\c').replace(/\r/g, '\\r')
    const plain = command === 'CONNECT' ? String : escape
    const head = command + '\n' + Object.entries(headers).map(([n, v]) => plain(n) + ':' + plain(v) + '\n').join('') + '\n'
    if (!this.binary && typeof body === 'string') {
      this.socket.send(head + body + '\0')
      return
    }
    const bytes = bytesOf(body)
    const start = utf8.encode(head)
    const frame = new Uint8Array(start.length + bytes.length + 1)
    frame.set(start)
    frame.set(bytes, start.length)
    this.socket.send(frame)
  }

  feed (bytes) {
    const all = new Uint8Array(this.left.length + bytes.length)
    all.set(this.left)
    all.set(bytes, this.left.length)
    let at = 0
    for (;;) {
      while (all[at] === 10) at++ // heart-beats, and line ends between frames
      let end = at
      while (end + 1 < all.length && !(all[end] === 10 && all[end + 1] === 10)) end++
      if (end + 1 >= all.length) break
      const [command, ...lines] = text(all.subarray(at, end)).split('\n')
      const headers = {}
      for (const line of lines) {
        const [name, value] = line.split(':').map(s => s.replace(/\\([\\ncr])/g, (_, c) => ({ '\\': '\\', n: '\n', c: ':', r: '\r' })[c]))
        if (!(name in headers)) headers[name] = value
      }
      const start = end + 2
      const stop = 'content-length' in headers ? start + Number(headers['content-length']) : all.indexOf(0, start)
      if (stop < start || stop >= all.length) break
      this.inbox.put(command, { command, headers, body: all.slice(start, stop) })
      at = stop + 1
    }
    this.left = all.slice(at)
  }

  async asked (command, headers, body) {
    const receipt = 'r' + ++this.receipts
    this.send(command, { ...headers, receipt }, body)
    const answer = await this.inbox.take('RECEIPT')
    if (answer.headers['receipt-id'] !== receipt) throw new Error('the receipt of another frame: ' + answer.headers['receipt-id'])
  }

  next () { return this.inbox.take('MESSAGE') }

  close () { this.socket.close() }
}

async (url) => {
  // All that a page can see of WebSocket and of sockets to `url`, in JSON.
  const seen = {};
  const attempt = make => {
    try { return String(make()); } catch (error) {
      return [error.name, error.message.replaceAll(/ws:\/\/[^\s'"]*/g, "URL"), error instanceof DOMException];
    }
  };
  const wait = (target, kind) => new Promise(resolve => target.addEventListener(kind, resolve, {once: true}));
  const open = async (...args) => {
    const socket = new WebSocket(...args);
    await wait(socket, "open");
    return socket;
  };
  const shape = (object, name) => {
    const {value, get, set, ...flags} = Object.getOwnPropertyDescriptor(object, name);
    const tell = f => f && [typeof f, f.name, f.length, Function.prototype.toString.call(f).includes("[native code]")];
    return [flags, typeof value, tell(get), tell(set)];
  };

  // The class.
  seen.class = [typeof WebSocket, WebSocket.name, WebSocket.length, shape(globalThis, "WebSocket"),
    Object.getOwnPropertyNames(WebSocket).sort(), Object.getPrototypeOf(WebSocket) === EventTarget,
    Function.prototype.toString.call(WebSocket).includes("[native code]")];
  seen.statics = Reflect.ownKeys(WebSocket).map(key => [String(key), shape(WebSocket, key)]);
  seen.text = [WebSocket.toString === Function.prototype.toString, `${WebSocket.prototype}`, Object.isExtensible(WebSocket)];
  seen.kin = [new Event("x") instanceof WebSocket, Object.create(WebSocket.prototype) instanceof WebSocket,
    WebSocket.prototype instanceof EventTarget, Object.getPrototypeOf(WebSocket.prototype) === EventTarget.prototype,
    Symbol.hasInstance in WebSocket, Object.hasOwn(WebSocket, "name"), "url" in WebSocket.prototype];
  seen.constants = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"].map(name => [WebSocket[name], WebSocket.prototype[name]]);
  seen.prototype = Object.getOwnPropertyNames(WebSocket.prototype).sort().map(name => [name, shape(WebSocket.prototype, name)]);
  seen.messageOrigin = shape(MessageEvent.prototype, "origin");
  seen.same = [globalThis.WebSocket === WebSocket, WebSocket.prototype.constructor === WebSocket, "WebSocket" in globalThis];

  // What is refused, and in which words.
  seen.errors = [
    attempt(() => new WebSocket()),
    attempt(() => WebSocket(url)),
    attempt(() => new WebSocket("ws://")),
    attempt(() => new WebSocket("ftp://myapp/")),
    attempt(() => new WebSocket(`${url}#part`)),
    attempt(() => new WebSocket(Symbol("x"))),
    attempt(() => new WebSocket({toString() { throw new RangeError("mine"); }})),
    attempt(() => new WebSocket(url, "a b")),
    attempt(() => new WebSocket(url, ["one", "one"])),
    attempt(() => Object.getOwnPropertyDescriptor(WebSocket.prototype, "url").get.call({})),
    attempt(() => Object.getOwnPropertyDescriptor(MessageEvent.prototype, "origin").get.call({})),
    attempt(() => WebSocket.prototype.url),
  ];
  let asked = 0;
  const strange = new WebSocket({toString() { asked += 1; return url; }});
  seen.readOnce = asked;
  seen.unopened = [strange.readyState, attempt(() => strange.send("x")), attempt(() => strange.close(999)),
    attempt(() => strange.close(1000, "x".repeat(124)))];
  strange.close();
  const lost = await wait(strange, "close");
  seen.given_up = [lost.code, lost.wasClean, strange.readyState];

  // A socket.
  const socket = new WebSocket(url);
  seen.before = [socket.readyState, socket.protocol, socket.extensions, socket.bufferedAmount, socket.binaryType];
  const opened = await wait(socket, "open");
  seen.url = socket.url;
  seen.open = [socket.readyState, socket.protocol, typeof socket.extensions, opened.target === socket, opened.isTrusted,
    socket instanceof WebSocket, socket instanceof EventTarget, socket.constructor === WebSocket, socket.constructor.name,
    Object.prototype.toString.call(socket), Object.getOwnPropertyNames(socket), Object.keys(socket),
    Object.getPrototypeOf(socket) === WebSocket.prototype, socket.OPEN];
  const all = [];
  for (const key in socket) all.push(key);
  seen.enumerated = all.sort();

  // Messages.
  const heard = [];
  socket.onmessage = event => heard.push(event);
  socket.addEventListener("message", event => heard.push(event));
  socket.addEventListener("message", {handleEvent(event) { heard.push(event); }});
  let message = wait(socket, "message");
  socket.send("text");
  heard.push(await message);
  seen.origins = heard.map(event => event.origin);
  seen.message = heard.map(event => [event.data, event.type, event.isTrusted, event.target === socket, event.source,
    event.lastEventId, event.ports.length, event instanceof MessageEvent]);
  socket.onmessage = null;
  for (const type of ["blob", "arraybuffer"]) {
    socket.binaryType = type;
    message = wait(socket, "message");
    socket.send(Uint8Array.of(0, 255));
    const {data, origin} = await message;
    seen[type] = [data.constructor.name, [...new Uint8Array(await new Response(data).arrayBuffer())], origin];
  }
  message = wait(socket, "message");
  socket.dispatchEvent(new MessageEvent("message", {data: 1, origin: "https://made.test"}));
  seen.made = (await message).origin;

  // Ends.
  socket.send("close");
  const closed = await wait(socket, "close");
  seen.told = [closed.code, closed.reason, closed.wasClean, closed instanceof CloseEvent, socket.readyState, socket.url];
  const mine = await open(url);
  mine.close(3999, "bye");
  seen.closing = mine.readyState;
  const ended = await wait(mine, "close");
  seen.ended = [ended.code, ended.reason, ended.wasClean, mine.readyState];

  // Subprotocols, and subclasses.
  seen.protocols = [];
  for (const asked of ["one", ["none", "two", "one"], new Set(["one"])]) {
    const chosen = await open(url, asked);
    seen.protocols.push(chosen.protocol);
    chosen.close();
  }
  class Chat extends WebSocket {
    #secret = 1;
    static make = text => new this(text);
    constructor(text) { super(text); this.own = text; }
    get secret() { return this.#secret; }
    send(data) { super.send(`chat ${data}`); }
  }
  const chat = Chat.make(url);
  await wait(chat, "open");
  message = wait(chat, "message");
  chat.send("x");
  const {data, origin} = await message;
  seen.subclass = [data, origin, chat.url, chat.secret, chat.own === url, chat instanceof Chat, chat instanceof WebSocket,
    chat.constructor === Chat, Object.getPrototypeOf(Chat) === WebSocket, Chat.OPEN];
  chat.close();
  const reflected = Reflect.construct(WebSocket, [url], Chat);
  seen.reflected = [reflected instanceof Chat, reflected.url];
  reflected.close();
  return seen;
}

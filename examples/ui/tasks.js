// The list lives in Python. This page shows what it is sent, and says what the user did.
const socket = new WebSocket("ws://myapp/tasks");
const form = document.querySelector("#new"), button = form.querySelector("button");
const list = document.querySelector("#list"), state = document.querySelector("#state");
const say = message => socket.send(JSON.stringify(message));

socket.onopen = () => {
  state.textContent = "connected";
  button.disabled = false;
};
socket.onclose = () => {
  state.textContent = "not connected";
  button.disabled = true;
};
socket.onmessage = ({data}) => {
  const tasks = JSON.parse(data), left = tasks.filter(task => !task.done).length;
  list.replaceChildren(...tasks.map(row));
  document.querySelector("#left").textContent = `${left} of ${tasks.length} left`;
};

function row({id, text, done}) {
  const item = document.createElement("li"), label = document.createElement("label");
  const box = document.createElement("input"), words = document.createElement("span");
  box.type = "checkbox";
  box.checked = done;
  box.onchange = () => say({toggle: id});
  words.textContent = text;
  label.append(box, words);
  item.classList.toggle("done", done);
  item.append(label);
  return item;
}

form.onsubmit = event => {
  event.preventDefault();
  say({add: new FormData(form).get("text")});
  form.reset();
};

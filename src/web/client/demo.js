// What the client is for: a list, a number and an inbox that are always as the database has them, over one connection
// however many tabs show them. Nothing here asks twice.
import { connect } from './provost.js'

const COURSES = '/api/admin/courses?limit=10'
const PENDING = '/api/admin/payments/pending-count'
const KEEP = 'provost.demo' // in sessionStorage: { token, subject }
const FIGURES_MS = 1000 // how often the browser, not the server, is asked who shares the connection

const $ = id => document.getElementById(id)
const time = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })
const number = new Intl.NumberFormat()
const price = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 })

const NONE = 'None is waiting. What is sent to you appears here at once, in every tab, and stays until you acknowledge it.'
const UNKNOWN = 'To see what is sent to a user, sign in with their token, or say whose this key is.'

let connection = null
let attempt = 0 // to sign in: what comes of an earlier one is not looked at
let figures = 0
let asked = null // the connection that has not answered yet
let inboxes = null // where the tabs of a user tell each other what has been acknowledged

// ---- what is shown ---------------------------------------------------------------------------------

function show(id, text) {
  $(id).hidden = !text
  $(id).textContent = text ?? ''
}

function fill(id, text) {
  const to = $(id)
  const changed = !to.classList.contains('loading') && to.textContent !== text
  to.classList.remove('loading')
  to.textContent = text
  if (changed) freshen(to)
}

function freshen(element) {
  element.classList.remove('fresh')
  void element.offsetWidth // so that the animation starts anew
  element.classList.add('fresh')
}

const STATES = { connecting: 'connecting', open: 'live', waiting: 'waiting to come back', closed: 'signed out' }

function showState(state, why) {
  const seconds = Math.ceil((why?.retry ?? 0) / 1000)
  $('state').dataset.state = state
  $('state').textContent = STATES[state] + (state === 'waiting' && seconds ? `, in ${seconds} s` : '')
}

async function showFigures() {
  const from = connection
  if (!from || asked === from) return
  asked = from
  const info = await from.info()
  if (asked === from) asked = null
  if (from !== connection) return
  const modes = { 'shared-worker': 'by a SharedWorker', leader: info.here ? 'this tab has it' : 'another tab has it', socket: 'not at all' }
  $('tabs').textContent = number.format(info.tabs)
  $('sockets').textContent = number.format(info.sockets)
  $('mode').textContent = modes[info.mode]
}

// ---- courses ---------------------------------------------------------------------------------------

function fillRow(row, course) {
  const cells = [course.title, course.institution?.name ?? 'the platform itself', course.category?.name ?? '', course.status,
    price.format(course.base_price), number.format(course._count?.studentCourseEnrollments ?? 0)]
  let changed = false
  cells.forEach((text, n) => {
    const to = n === 3 ? row.cells[n].firstElementChild : row.cells[n]
    if (to.textContent === text) return
    to.textContent = text
    changed = true
  })
  row.cells[3].firstElementChild.dataset.status = course.status
  return changed
}

function showCourses({ courses, pagination }) {
  const body = $('courses')
  const known = new Map([...body.rows].filter(row => row.dataset.id).map(row => [row.dataset.id, row]))
  const first = known.size === 0
  const rows = courses.map(course => {
    const row = known.get(String(course.id)) ?? $('course').content.firstElementChild.cloneNode(true)
    row.dataset.id = course.id
    if (fillRow(row, course) && !first) freshen(row)
    return row
  })
  if (rows.length === 0) rows.push(emptyRow('There is no course.'))
  body.replaceChildren(...rows)
  body.setAttribute('aria-busy', 'false')
  $('courses-when').textContent = `${courses.length} of ${number.format(pagination.total)}, as of ${time.format(new Date())}`
  show('courses-problem', null)
}

function emptyRow(text) {
  const row = document.createElement('tr')
  const cell = row.insertCell()
  row.className = 'empty'
  cell.colSpan = 6
  cell.textContent = text
  return row
}

function coursesFailed(problem) {
  $('courses').setAttribute('aria-busy', 'false')
  if ($('courses').querySelector('.empty')) $('courses').replaceChildren(emptyRow('There is nothing to show.'))
  show('courses-problem', `${problem.message}${problem.live ? ' What is shown may be old.' : ''}`)
}

function showPending({ count }) {
  fill('pending', number.format(count))
  $('pending').title = ''
}

function pendingFailed(problem) {
  fill('pending', '?')
  $('pending').title = problem.message
}

// ---- notifications ---------------------------------------------------------------------------------

function countNotifications() {
  const n = $('notifications').childElementCount
  $('notifications-empty').hidden = n > 0
  $('notifications-count').textContent = n ? `${number.format(n)} to acknowledge` : ''
}

// What is promised here is kept when the user says so: only then does the client tell the server, which until then sends
// it again to whoever signs in.
function notified(data, event) {
  return new Promise(acknowledge => {
    const item = $('notification').content.firstElementChild.cloneNode(true)
    item.querySelector('strong').textContent = data?.title ?? event.name
    item.querySelector('p').textContent = data?.content ?? (typeof data === 'string' ? data : '')
    item.querySelector('small').textContent = [event.name, time.format(new Date())].join(' · ')
    item.dataset.nid = event.nid ?? ''
    item.acknowledged = () => {
      item.remove()
      countNotifications()
      acknowledge()
    }
    item.querySelector('button').addEventListener('click', () => {
      inboxes?.postMessage({ acknowledged: item.dataset.nid })
      item.acknowledged()
    })
    $('notifications').prepend(item)
    countNotifications()
  })
}

function openInbox(subject) {
  inboxes = new BroadcastChannel(`${KEEP} ${subject}`)
  inboxes.addEventListener('message', ({ data }) => {
    for (const item of [...$('notifications').children]) if (item.dataset.nid && item.dataset.nid === data.acknowledged) item.acknowledged()
  })
}

// A key, or a cookie, does not tell a page whose it is; the client then has a name of its own making for them.
function listenToInbox({ subject, token }) {
  const known = subject || /^[^.]+\.[^.]+\.[^.]+$/.test(token)
  $('notifications-empty').textContent = known ? NONE : UNKNOWN
  if (known) connection.on(`user:${connection.subject}`, '*', notified, { onError: problem => show('notifications-empty', problem.message) })
}

// ---- signing in and out ----------------------------------------------------------------------------

const kept = () => JSON.parse(sessionStorage.getItem(KEEP) ?? 'null')

function token(reason) {
  if (reason !== 'refused') return kept()?.token
  show('problem', 'The server does not accept this token, or not any more.')
  leave()
  return null
}

// In all tabs of this user: whoever signs in next begins anew.
function leave() {
  const left = connection
  attempt++
  inboxes?.close()
  inboxes = connection = null // what is said on leaving is not news
  left?.signOut()
  clearInterval(figures)
  sessionStorage.removeItem(KEEP)
  showState('closed')
  $('notifications').replaceChildren()
  $('courses').replaceChildren(emptyRow('Loading …'))
  $('courses').setAttribute('aria-busy', 'true')
  for (const id of ['pending', 'tabs', 'sockets', 'mode']) $(id).textContent = '–'
  $('pending').classList.add('loading')
  $('pending').title = $('courses-when').textContent = ''
  show('courses-problem', null)
  $('board').hidden = $('sign-out').hidden = true
  $('sign-in').hidden = false
  $('token').value = ''
}

function stateChanged(state, why) {
  if (!connection) return
  showState(state, why)
  showFigures()
  // With neither a token nor a cookie, waiting does not help.
  const nobody = why?.code === 4408 && !kept()?.token
  if (state !== 'closed' && !nobody) return
  const reasons = {
    4001: 'The connection was replaced by a newer one of the same user.',
    4403: 'The server does not accept this user here.',
    4408: 'The server wants to know who you are, and no session cookie tells it: sign in with a token.',
  }
  show('problem', reasons[why?.code])
  leave()
}

async function enter(who) {
  const mine = ++attempt
  let handle = null
  $('sign-in').hidden = true
  $('board').hidden = $('sign-out').hidden = false
  showState('connecting')
  try {
    handle = await connect({ token: who.token ? token : undefined, subject: who.subject || undefined })
  } catch (error) {
    if (mine === attempt) show('problem', error.message)
  }
  if (mine !== attempt) return handle?.release()
  if (!handle) return leave()
  connection = handle
  connection.onState(stateChanged)
  stateChanged(connection.state, connection.why) // what has become of it by now: another tab may have signed out
  if (!connection) return
  openInbox(connection.subject)
  connection.subscribe(COURSES, showCourses, { onError: coursesFailed })
  connection.subscribe(PENDING, showPending, { onError: pendingFailed })
  listenToInbox(who)
  countNotifications()
  figures = setInterval(showFigures, FIGURES_MS)
}

$('sign-in').addEventListener('submit', submitted => {
  submitted.preventDefault()
  show('problem', null)
  const who = { token: $('token').value.trim(), subject: $('subject').value.trim() }
  sessionStorage.setItem(KEEP, JSON.stringify(who))
  enter(who)
})
$('sign-out').addEventListener('click', () => connection ? connection.signOut() : leave())

if (kept()) enter(kept())
else $('sign-in').hidden = false

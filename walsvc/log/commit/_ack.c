/* Ack, the answer to an append: an awaitable that costs less than asyncio.Future. Twin and specification: ack.py.
   This file is the Ack as a future, _awaiting.c the Ack as a coroutine. _settling.c ends one Ack, _waker.c answers many at once;
   _callbacks.c has the callers that want to hear of the end, _wakeup.c wakes one task.

   An Ack speaks two protocols. Tasks, gather, wait_for, shield and timeout take it as a future; create_task and TaskGroup
   take it as a coroutine. A Waker gives many Acks their results and wakes the tasks that wait for them.

   A group of appends is answered in two steps. First the Waker marks every Ack of the group as done and moves its callbacks
   into one queue. Then it empties the queue in order. A task's own wake-up is called directly, in the task's context; every
   other callback goes through loop.call_soon. State is complete before the first wake-up, since a woken task may append,
   cancel or await anything at once.

   A direct wake-up is a shortcut with conditions. It is taken only for success, only on the running loop while no task runs,
   and never in debug mode; otherwise call_soon is the way, as in asyncio. A wake-up is known by the C function behind it,
   which ack.py learns from a task of its own (`learn`). Nothing overtakes: what waits in the queue comes first.

   All of this needs the GIL, so free-threaded builds use the twin. Reference contracts stand above each function. */

#include "_ack.h"
#include <stddef.h>

#define FREE_MAX 4096  /* Acks kept for reuse: one large group */

static Ack *free_acks[FREE_MAX];
static int free_count;
static PyObject *cancelled_error, *s_handler;
PyObject *invalid_state;

/* ---- Ack: making and freeing */

/* Returns a new, untracked Ack; its first callback, or its exception, makes it known to the collector. Before that it is in no cycle. */
Ack *ack_new(PyObject *loop)
{
    Ack *self;
    if (free_count > 0) {
        self = free_acks[--free_count];
        _Py_NewReference((PyObject *)self);
    } else {
        self = PyObject_GC_New(Ack, &AckType);
        if (self == NULL)
            return NULL;
    }
    self->loop = Py_NewRef(loop);
    self->callback = self->context = self->more = self->result = NULL;
    self->exception = self->traceback = self->message = self->weakrefs = NULL;
    self->state = PENDING;
    self->blocking = self->unseen = 0;
    self->durable = 1;
    return self;
}

static PyObject *ack_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", NULL};
    PyObject *loop;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Ack", names, &loop))
        return NULL;
    return (PyObject *)ack_new(loop);
}

static int ack_traverse(Ack *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->more);
    Py_VISIT(self->result);
    Py_VISIT(self->exception);
    Py_VISIT(self->traceback);
    Py_VISIT(self->message);
    return 0;
}

static int ack_clear(Ack *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->more);
    Py_CLEAR(self->result);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->traceback);
    Py_CLEAR(self->message);
    return 0;
}

/* An exception that nobody fetched is told to the loop's handler, as asyncio's futures do. */
static void ack_finalize(PyObject *op)
{
    Ack *self = (Ack *)op;
    if (!self->unseen || self->loop == NULL)
        return;
    self->unseen = 0;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *told = Py_BuildValue("{s:s,s:O,s:O}", "message", "Ack exception was never retrieved", "exception",
                                   self->exception, "future", op);
    PyObject *answer = told == NULL ? NULL : PyObject_CallMethodOneArg(self->loop, s_handler, told);
    if (answer == NULL)
        PyErr_WriteUnraisable(op);
    Py_XDECREF(answer);
    Py_XDECREF(told);
    PyErr_Restore(type, value, trace);
}

static void ack_dealloc(PyObject *op)
{
    Ack *self = (Ack *)op;
    if (self->unseen && PyObject_CallFinalizerFromDealloc(op) < 0)
        return;
    /* An object is finalized once, by this or by the collector in a cycle, and its memory remembers it: it is not reused. */
    char reusable = !PyObject_GC_IsFinalized(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(op);
    ack_clear(self);
    if (reusable && free_count < FREE_MAX)
        free_acks[free_count++] = self;
    else
        PyObject_GC_Del(op);
}

/* ---- Ack: outcome */

/* Returns a new reference. An AppendResult is made at the first call and kept: CPython's own wake-up asks for the result
   and drops it. */
static PyObject *ack_value(Ack *self)
{
    if (self->result == NULL)
        self->result = new_result(self->numbers, self->durable);
    return Py_XNewRef(self->result);
}

/* Returns a new CancelledError, or NULL with an error set. */
static PyObject *ack_make_cancelled_error(Ack *self, PyObject *Py_UNUSED(ignored))
{
    if (self->message == NULL || self->message == Py_None)
        return PyObject_CallNoArgs(cancelled_error);
    return PyObject_CallOneArg(cancelled_error, self->message);
}

/* Sets an exception, whose reference it takes; NULL: one is set already. */
void raise_instance(PyObject *exception)
{
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
}

PyObject *ack_result(Ack *self, PyObject *Py_UNUSED(ignored))
{
    switch (self->state) {
    case DONE:
        return ack_value(self);
    case FAILED:
        self->unseen = 0;
        if (PyException_SetTraceback(self->exception, self->traceback ? self->traceback : Py_None) < 0)
            return NULL;
        raise_instance(Py_NewRef(self->exception));
        return NULL;
    case CANCELLED:
        raise_instance(ack_make_cancelled_error(self, NULL));
        return NULL;
    default:
        PyErr_SetString(invalid_state, "Result is not set.");
        return NULL;
    }
}

static PyObject *ack_exception(Ack *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == CANCELLED) {
        raise_instance(ack_make_cancelled_error(self, NULL));
        return NULL;
    }
    if (self->state == PENDING) {
        PyErr_SetString(invalid_state, "Exception is not set.");
        return NULL;
    }
    self->unseen = 0;
    return Py_NewRef(self->state == FAILED ? self->exception : Py_None);
}

static PyObject *ack_done(Ack *self, PyObject *Py_UNUSED(ignored)) { return PyBool_FromLong(self->state != PENDING); }

static PyObject *ack_cancelled(Ack *self, PyObject *Py_UNUSED(ignored)) { return PyBool_FromLong(self->state == CANCELLED); }

static PyObject *ack_get_loop(Ack *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self->loop); }

/* ---- Ack: the type */

static PyObject *get_blocking(Ack *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(self->blocking); }

static int set_blocking(Ack *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
    if (truth < 0)
        return -1;
    self->blocking = (unsigned char)truth;
    return 0;
}

static PyObject *get_message(Ack *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->message == NULL ? Py_None : self->message);
}

static int set_message(Ack *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(self->message, Py_XNewRef(value));
    return 0;
}

static PyObject *ack_repr(PyObject *op)
{
    Ack *self = (Ack *)op;
    if (self->state == FAILED)
        return PyUnicode_FromFormat("<Ack finished exception=%R>", self->exception);
    if (self->state != DONE)
        return PyUnicode_FromString(self->state == PENDING ? "<Ack pending>" : "<Ack cancelled>");
    PyObject *value = ack_value(self);
    PyObject *text = value == NULL ? NULL : PyUnicode_FromFormat("<Ack finished result=%R>", value);
    Py_XDECREF(value);
    return text;
}

static PyMethodDef ack_methods[] = {
    {"result", (PyCFunction)ack_result, METH_NOARGS, "Return the result, or raise what the append failed with."},
    {"exception", (PyCFunction)ack_exception, METH_NOARGS, "Return what the append failed with, or None."},
    {"done", (PyCFunction)ack_done, METH_NOARGS, "Return whether the append has its answer, or the wait was cancelled."},
    {"cancelled", (PyCFunction)ack_cancelled, METH_NOARGS, "Return whether the wait was cancelled."},
    {"cancel", (PyCFunction)ack_cancel, METH_VARARGS | METH_KEYWORDS, "End the wait; an accepted record stays."},
    {"get_loop", (PyCFunction)ack_get_loop, METH_NOARGS, "Return the loop that the log belongs to."},
    {"add_done_callback", (PyCFunction)ack_add_done_callback, METH_FASTCALL | METH_KEYWORDS,
     "Call callback(ack) through the loop when the append has its answer."},
    {"remove_done_callback", (PyCFunction)ack_remove_done_callback, METH_O, "Return how many equal callbacks were removed."},
    {"set_result", (PyCFunction)ack_set_result, METH_O, "Answer; for the log alone."},
    {"set_exception", (PyCFunction)ack_set_exception, METH_O, "Fail; for the log alone."},
    {"_make_cancelled_error", (PyCFunction)ack_make_cancelled_error, METH_NOARGS, NULL},
    {"send", (PyCFunction)ack_send, METH_O, "Coroutine protocol: return self while pending, then stop with the result."},
    {"throw", (PyCFunction)ack_throw, METH_FASTCALL, "Coroutine protocol: raise; the Ack stays as it is."},
    {"close", (PyCFunction)ack_close, METH_NOARGS, "Coroutine protocol: nothing to close."},
    {"__class_getitem__", (PyCFunction)Py_GenericAlias, METH_O | METH_CLASS, "Ack[T]: an Ack of a T."},
    {NULL},
};

static PyGetSetDef ack_attributes[] = {
    {"_asyncio_future_blocking", (getter)get_blocking, (setter)set_blocking, NULL, NULL},
    {"_cancel_message", (getter)get_message, (setter)set_message, NULL, NULL},
    {"_loop", (getter)ack_get_loop, NULL, NULL, NULL},
    {NULL},
};

static PyAsyncMethods ack_async = {.am_await = PyObject_SelfIter, .am_send = ack_am_send};

PyTypeObject AckType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "walsvc.Ack",
    .tp_doc = PyDoc_STR("The answer to an append: await it, or use it as asyncio uses futures and coroutines."),
    .tp_basicsize = sizeof(Ack),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = ack_make,
    .tp_dealloc = ack_dealloc,
    .tp_finalize = ack_finalize,
    .tp_traverse = (traverseproc)ack_traverse,
    .tp_clear = (inquiry)ack_clear,
    .tp_weaklistoffset = offsetof(Ack, weakrefs),
    .tp_as_async = &ack_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)ack_next,
    .tp_repr = ack_repr,
    .tp_methods = ack_methods,
    .tp_getset = ack_attributes,
};

/* ---- the module */

static PyMethodDef functions[] = {
    {"learn", learn, METH_O, "learn(callback): take this for a task's wake-up; returns whether it is one of C."},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_ack", .m_doc = "Acks in C; see ack.py.", .m_size = -1, .m_methods = functions};

static int import_names(void)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio != NULL) {
        invalid_state = PyObject_GetAttrString(asyncio, "InvalidStateError");
        cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
    }
    Py_XDECREF(asyncio);
    s_handler = PyUnicode_InternFromString("call_exception_handler");
    return PyErr_Occurred() ? -1 : 0;
}

PyMODINIT_FUNC PyInit__ack(void)
{
    if (import_names() < 0 || result_import() < 0 || callbacks_import() < 0 || wakeup_import() < 0 || waker_import() < 0 ||
        PyType_Ready(&AckType) < 0 || PyType_Ready(&WakerType) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddObjectRef(module, "Ack", (PyObject *)&AckType) < 0 ||
                           PyModule_AddObjectRef(module, "Waker", (PyObject *)&WakerType) < 0))
        Py_CLEAR(module);
    return module;
}

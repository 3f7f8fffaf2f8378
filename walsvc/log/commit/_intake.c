/* Lane: the short way of an append, in C. Twin and specification: class PythonLane in lane.py, which says what each step means.

   A Lane owns nothing of its own: the subclass Intake gives it the lists of the filling group and says how much room there is.
   An append of plain bytes that fits takes this way: check the arguments, make an Ack, put payload and Ack into the lists, and
   tell the coordinator once a group. A Relaxed one gets an Ack with its answer, and the timer is armed once. Everything else is
   handed to `slow`, in one call.

   Whatever may run other Python code (the check of the loop, making an Ack, looking a topic up) comes before the room is read.
   From there to the end of the two lists nothing of Python runs, so both lists are always equally long. */

#include "_arguments.h"
#include <pythread.h>
#include <stddef.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *new_ack, *accepted, *check, *wake, *arm, *slow; /* callables; never NULL after __init__ */
    PyObject *payloads, *waiters, *labels, *topics; /* of the filling group: two lists, a dict, a container */
    Py_ssize_t room, limit, cost, record_bytes_max, records_max, length_bytes;
    unsigned long long first_lsn, segment_id, begin; /* of the filling group; begin: offset of its first record */
    unsigned long thread;
    char wanted, armed;
} Lane;

static PyObject *s_mend;

/* ---- making and freeing */

static int lane_init(Lane *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"new_ack", "accepted", "check", "wake", "arm", "slow",
                               "record_bytes_max", "records_max", "length_bytes", NULL};
    PyObject *new_ack, *accepted, *check, *wake, *arm, *slow;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOnnn:Lane", keywords, &new_ack, &accepted, &check, &wake, &arm, &slow,
                                     &self->record_bytes_max, &self->records_max, &self->length_bytes))
        return -1;
    Py_XSETREF(self->new_ack, Py_NewRef(new_ack));
    Py_XSETREF(self->accepted, Py_NewRef(accepted));
    Py_XSETREF(self->check, Py_NewRef(check));
    Py_XSETREF(self->wake, Py_NewRef(wake));
    Py_XSETREF(self->arm, Py_NewRef(arm));
    Py_XSETREF(self->slow, Py_NewRef(slow));
    self->thread = PyThread_get_thread_ident();
    self->room = self->limit = -1;
    self->cost = self->length_bytes;
    return 0;
}

static int lane_traverse(Lane *self, visitproc visit, void *arg)
{
    Py_VISIT(self->new_ack);
    Py_VISIT(self->accepted);
    Py_VISIT(self->check);
    Py_VISIT(self->wake);
    Py_VISIT(self->arm);
    Py_VISIT(self->slow);
    Py_VISIT(self->payloads);
    Py_VISIT(self->waiters);
    Py_VISIT(self->labels);
    Py_VISIT(self->topics);
    return 0;
}

static int lane_clear(Lane *self)
{
    Py_CLEAR(self->new_ack);
    Py_CLEAR(self->accepted);
    Py_CLEAR(self->check);
    Py_CLEAR(self->wake);
    Py_CLEAR(self->arm);
    Py_CLEAR(self->slow);
    Py_CLEAR(self->payloads);
    Py_CLEAR(self->waiters);
    Py_CLEAR(self->labels);
    Py_CLEAR(self->topics);
    return 0;
}

static void lane_dealloc(Lane *self)
{
    PyObject_GC_UnTrack(self);
    lane_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* ---- appending */

/* fill(payloads, waiters, labels, topics, first_lsn, segment_id, begin): what the filling group is made of, and where it stands. */
static PyObject *lane_fill(Lane *self, PyObject *args)
{
    PyObject *payloads, *waiters, *labels, *topics;
    unsigned long long first_lsn, segment_id, begin;
    if (!PyArg_ParseTuple(args, "O!O!O!OKKK:fill", &PyList_Type, &payloads, &PyList_Type, &waiters, &PyDict_Type, &labels, &topics,
                          &first_lsn, &segment_id, &begin))
        return NULL;
    Py_XSETREF(self->payloads, Py_NewRef(payloads));
    Py_XSETREF(self->waiters, Py_NewRef(waiters));
    Py_XSETREF(self->labels, Py_NewRef(labels));
    Py_XSETREF(self->topics, Py_NewRef(topics));
    self->first_lsn = first_lsn;
    self->segment_id = segment_id;
    self->begin = begin;
    Py_RETURN_NONE;
}

/* Whether these bytes may go into the group as it is. Calls nothing. */
static int fits(Lane *self, PyObject *payload)
{
    Py_ssize_t length = PyBytes_GET_SIZE(payload);
    return self->payloads != NULL && self->room - length - self->cost >= 0 && length <= self->record_bytes_max &&
           PyList_GET_SIZE(self->payloads) < self->records_max;
}

/* Check the loop, unless somebody waits for the group: it costs a system call in CPython 3.11. -1: an error is set. */
static int checked(Lane *self)
{
    if (self->wanted)
        return 0;
    PyObject *outcome = PyObject_CallNoArgs(self->check);
    Py_XDECREF(outcome);
    return outcome == NULL ? -1 : 0;
}

/* Returns a new Ack for the next record of the group: with its answer if it is Relaxed. */
static PyObject *ack_for(Lane *self, PyObject *payload, PyObject *mode)
{
    if (mode == strict)
        return PyObject_CallNoArgs(self->new_ack);
    Py_ssize_t index = PyList_GET_SIZE(self->payloads);
    Py_ssize_t before = self->limit - self->room - self->cost * index;
    PyObject *numbers[4] = {
        PyLong_FromUnsignedLongLong(self->first_lsn + (unsigned long long)index),
        PyLong_FromUnsignedLongLong(self->segment_id),
        PyLong_FromUnsignedLongLong(self->begin + (unsigned long long)before),
        PyLong_FromSsize_t(PyBytes_GET_SIZE(payload)),
    };
    PyObject *ack = NULL;
    if (numbers[0] != NULL && numbers[1] != NULL && numbers[2] != NULL && numbers[3] != NULL)
        ack = PyObject_Vectorcall(self->accepted, numbers, 4, NULL);
    for (int i = 0; i < 4; i++)
        Py_XDECREF(numbers[i]);
    return ack;
}

/* Put payload and waiter into the group: both or neither. -1: no memory. */
static int put(Lane *self, PyObject *payload, PyObject *waiter)
{
    Py_ssize_t index = PyList_GET_SIZE(self->payloads);
    if (PyList_Append(self->payloads, payload) < 0)
        return -1;
    if (PyList_Append(self->waiters, waiter) < 0) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyList_SetSlice(self->payloads, index, index + 1, NULL);
        PyErr_Restore(type, value, trace);
        return -1;
    }
    self->room -= PyBytes_GET_SIZE(payload) + self->cost;
    return 0;
}

/* The same with labels, unless they are NULL. */
static int put_labelled(Lane *self, PyObject *payload, PyObject *waiter, PyObject *labels)
{
    if (labels == NULL)
        return put(self, payload, waiter);
    PyObject *index = PyLong_FromSsize_t(PyList_GET_SIZE(self->payloads));
    int outcome = index == NULL ? -1 : PyDict_SetItem(self->labels, index, labels);
    if (outcome == 0 && (outcome = put(self, payload, waiter)) < 0) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyDict_DelItem(self->labels, index);
        PyErr_Restore(type, value, trace);
    }
    Py_XDECREF(index);
    return outcome;
}

/* Tell the coordinator that somebody waits, or arm the timer of Relaxed records; once. The record is in the group whatever comes
   of it. -1: an exception, of a signal handler perhaps; the subclass has put things right. */
static int tell(Lane *self, PyObject *mode)
{
    if (self->wanted || (mode == relaxed && self->armed))
        return 0;
    if (mode == strict)
        self->wanted = 1;
    PyObject *told = PyObject_CallNoArgs(mode == strict ? self->wake : self->arm);
    Py_XDECREF(told);
    if (told != NULL)
        return 0;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *mended = PyObject_CallMethodNoArgs((PyObject *)self, s_mend);
    Py_XDECREF(mended);
    if (mended == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    PyErr_Restore(type, value, trace);
    return -1;
}

/* Put a plain record into the group, which it has fitted so far, and tell who must know. Returns 1 and its Ack; 0: the group has
   changed meanwhile, since the check and the collector may run anything; -1: an error is set. */
static int take(Lane *self, PyObject *payload, PyObject *mode, PyObject *labels, PyObject **ack)
{
    if (checked(self) < 0)
        return -1;
    PyObject *payloads = self->payloads;
    Py_ssize_t index = PyList_GET_SIZE(payloads);
    if (!fits(self, payload) || (*ack = ack_for(self, payload, mode)) == NULL)
        return PyErr_Occurred() ? -1 : 0;
    int outcome = 0;
    if (self->payloads == payloads && PyList_GET_SIZE(payloads) == index && fits(self, payload) &&
        (labels == NULL || self->cost > self->length_bytes))
        outcome = put_labelled(self, payload, mode == strict ? *ack : Py_None, labels) < 0 || tell(self, mode) < 0 ? -1 : 1;
    if (outcome <= 0)
        Py_CLEAR(*ack);
    return outcome;
}

static PyObject *lane_append(Lane *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *found[ARGUMENTS];
    if (parse((PyObject *)self, args, count, keywords, found) < 0)
        return NULL;
    PyObject *payload = found[PAYLOAD], *mode = found[MODE], *ack = NULL;
    if (PyBytes_CheckExact(payload) && (mode == strict || mode == relaxed) && found[TYPE] == no_type &&
        found[ATTRIBUTES] == Py_None && found[EXPECTED] == Py_None && found[DEDUPE] == Py_None && fits(self, payload) && PyThread_get_thread_ident() == self->thread &&
        take(self, payload, mode, NULL, &ack) != 0)
        return ack;
    return PyObject_CallFunctionObjArgs(self->slow, payload, mode, found[TYPE], found[ATTRIBUTES], Py_None,
                                        found[EXPECTED], found[DEDUPE], NULL);
}

/* 1: the group has labels already, and its segment's summary has a row for the topic of these. */
static int known_topic(Lane *self, PyObject *labels)
{
    if (labels == Py_None || self->topics == NULL || self->cost <= self->length_bytes)
        return 0;
    PyObject *number = PyTuple_Check(labels) && PyTuple_GET_SIZE(labels) > 1 ? PyTuple_GET_ITEM(labels, 1) : NULL;
    return number == NULL ? 0 : PySequence_Contains(self->topics, number);
}

/* append_labelled(payload, labels, topic, mode, type): a record with a topic, and perhaps a type; labels, which has both, is None until
   the number of the topic is known. */
static PyObject *lane_append_labelled(Lane *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "append_labelled(payload, labels, topic, mode, type)");
        return NULL;
    }
    PyObject *payload = args[0], *labels = args[1], *mode = args[3], *ack = NULL;
    int known = PyBytes_CheckExact(payload) && (mode == strict || mode == relaxed) &&
                PyThread_get_thread_ident() == self->thread ? known_topic(self, labels) : 0;
    if (known < 0 || (known && fits(self, payload) && take(self, payload, mode, labels, &ack) != 0))
        return ack;
    return PyObject_CallFunctionObjArgs(self->slow, payload, mode, args[4], Py_None, args[2], Py_None, Py_None, NULL);
}

static PyMethodDef lane_methods[] = {
    {"append", (PyCFunction)lane_append, METH_FASTCALL | METH_KEYWORDS,
     "append($self, payload, mode=..., type=0, attributes=None, expected=None, dedupe=None)\n--\n\n"
     "Append one record; await the result. See walsvc.Log.append, and walsvc.keywords.AppendOptions for expected and dedupe."},
    {"append_labelled", (PyCFunction)lane_append_labelled, METH_FASTCALL, "Append a record to a topic."},
    {"fill", (PyCFunction)lane_fill, METH_VARARGS, "Say what the filling group is made of, and where it stands."},
    {NULL},
};

static PyMemberDef lane_members[] = {
    {"room", T_PYSSIZET, offsetof(Lane, room), 0, NULL},
    {"limit", T_PYSSIZET, offsetof(Lane, limit), 0, NULL},
    {"cost", T_PYSSIZET, offsetof(Lane, cost), 0, NULL},
    {"wanted", T_BOOL, offsetof(Lane, wanted), 0, NULL},
    {"armed", T_BOOL, offsetof(Lane, armed), 0, NULL},
    {NULL},
};

static PyTypeObject LaneType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "walsvc.log.commit._intake.Lane",
    .tp_doc = PyDoc_STR("The short way of an append into the filling group; see lane.py."),
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)lane_init,
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_traverse = (traverseproc)lane_traverse,
    .tp_clear = (inquiry)lane_clear,
    .tp_methods = lane_methods,
    .tp_members = lane_members,
};

/* ---- the module */

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_intake", .m_doc = "The short way of an append in C; see lane.py.", .m_size = -1};

static int import_names(void)
{
    s_mend = PyUnicode_InternFromString("mend");
    return arguments_import();
}

PyMODINIT_FUNC PyInit__intake(void)
{
    if (import_names() < 0 || PyType_Ready(&LaneType) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddObjectRef(module, "Lane", (PyObject *)&LaneType) < 0)
        Py_CLEAR(module);
    return module;
}

/* The arguments of append, which the short way in C takes as Python's own functions do. For _intake.c alone: a header, so that the
   compiler puts it into the append. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum { PAYLOAD, MODE, TYPE, ATTRIBUTES, EXPECTED, DEDUPE, ARGUMENTS };

static PyObject *strict, *relaxed, *no_type, *names[ARGUMENTS];

/* TypeError for a keyword that append does not take, with the one that was probably meant. */
static void unexpected_keyword(PyObject *lane, PyObject *name)
{
    PyObject *keywords = PyImport_ImportModule("walsvc.keywords"), *call = PyObject_GetAttrString(lane, "append");
    PyObject *error = NULL;
    if (keywords != NULL && call != NULL)
        error = PyObject_CallMethod(keywords, "unexpected_keyword", "OO", call, name);
    if (error != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    Py_XDECREF(call);
    Py_XDECREF(keywords);
}

/* Sort positional and keyword arguments into `found`, borrowed. -1: TypeError. */
static int parse(PyObject *lane, PyObject *const *args, Py_ssize_t count, PyObject *keywords, PyObject *found[ARGUMENTS])
{
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    found[PAYLOAD] = NULL;
    found[MODE] = strict;
    found[TYPE] = no_type;
    found[ATTRIBUTES] = found[EXPECTED] = found[DEDUPE] = Py_None;
    if (count > ARGUMENTS) {
        PyErr_Format(PyExc_TypeError, "append() takes at most %d arguments, %zd were given", ARGUMENTS, count + named);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        found[i] = args[i];
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, i);
        Py_ssize_t at = 0;
        while (at < ARGUMENTS && name != names[at] && PyUnicode_Compare(name, names[at]) != 0)
            at++;
        if (at == ARGUMENTS)
            unexpected_keyword(lane, name);
        else if (at < count)
            PyErr_Format(PyExc_TypeError, "append() got multiple values for argument '%U'", name);
        if (at == ARGUMENTS || at < count)
            return -1;
        found[at] = args[count + i];
    }
    if (found[PAYLOAD] == NULL) {
        PyErr_SetString(PyExc_TypeError, "append() missing 1 required argument: 'payload'");
        return -1;
    }
    return 0;
}

/* -1: an error is set. */
static int arguments_import(void)
{
    static const char *const texts[ARGUMENTS] = {"payload", "mode", "type", "attributes", "expected", "dedupe"};
    for (int i = 0; i < ARGUMENTS; i++)
        names[i] = PyUnicode_InternFromString(texts[i]);
    PyObject *model = PyImport_ImportModule("walsvc.model"), *payload = PyImport_ImportModule("walsvc.log.commit.payload");
    if (model != NULL && payload != NULL) {
        strict = PyObject_GetAttrString(model, "Strict");
        relaxed = PyObject_GetAttrString(model, "Relaxed");
        no_type = PyObject_GetAttrString(payload, "NO_TYPE");
    }
    Py_XDECREF(model);
    Py_XDECREF(payload);
    return PyErr_Occurred() ? -1 : 0;
}
